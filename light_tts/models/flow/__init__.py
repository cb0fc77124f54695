"""Conditional flow matching: speech tokens to mel spectrogram."""
