"""How good a classifier is: figures, calibration, decisions and comparisons, from logits and true classes."""
