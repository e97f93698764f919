"""The operator's side of Pigeonhole: command line, submission, progress, results."""
