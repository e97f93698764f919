"""Times of a server by the clock of this process."""

from orchestrator.contract.lines.server_clock import ASK_AGAIN_S, ServerClock


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(clock: Clock) -> ServerClock:
    """TIME was sent at 100.0, when the server's clock said 5000.0005."""
    found = ServerClock(clock)
    found.told(100.0, b"5000", b"500")
    return found


def test_what_the_server_says_later_is_as_much_later_here():
    clock = Clock()
    server_clock = told(clock)
    clock.now = 100.9

    assert round(server_clock.when(5_000_700, sent_s=100.1), 6) == 100.6995


def test_a_time_lies_between_the_call_and_its_reply_also_where_the_servers_clock_was_set():
    clock = Clock()
    server_clock = told(clock)
    clock.now = 100.5

    assert server_clock.when(9_000_000, sent_s=100.2) == 100.5
    assert server_clock.when(1_000_000, sent_s=100.2) == 100.2


def test_the_server_is_asked_again_when_its_last_reply_is_old():
    clock = Clock()
    assert ServerClock(clock).must_ask()

    server_clock = told(clock)
    assert not server_clock.must_ask()
    clock.now += ASK_AGAIN_S + 0.1
    assert server_clock.must_ask()
