"""All that the operator's side and the workers say to each other; imports neither of them, nor torch."""
