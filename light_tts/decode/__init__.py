"""Speech tokens to waveform: chunk schedule, flow, vocoder."""
