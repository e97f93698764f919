"""Training data: opened by looking, scanned, split. Only ever read."""
