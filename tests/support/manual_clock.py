"""A clock that a test sets."""


class ManualClock:
    """Returns `now`, in seconds, which stands still until a test changes it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
