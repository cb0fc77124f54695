"""The neural networks, as pure modules that load the released checkpoints."""
