"""Fitting a network to images: the loop, its schedule, precision, checkpoints and history."""
