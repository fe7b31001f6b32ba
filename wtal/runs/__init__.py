"""A run folder: its settings, checkpoints, and going on after an interruption."""
