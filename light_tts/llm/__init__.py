"""Speech-token generation: sequences, sampling, batched stepping."""
