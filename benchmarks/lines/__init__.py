"""The benchmarks of lines: `python -m benchmarks.lines`."""
