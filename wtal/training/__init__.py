"""The schedule, pseudo-labels, losses and the trainer."""
