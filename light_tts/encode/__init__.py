"""Text and reference voices to model inputs."""
