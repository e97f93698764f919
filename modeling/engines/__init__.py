"""What computes a network's answers: torch anywhere, OpenVINO on CPUs; the fastest is found by measuring."""
