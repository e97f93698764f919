"""Threads of the sender of webhooks, with a ledger that a test answers for."""

import threading

from workers.webhooks import AT_ONCE, WebhookSender


class FakeDeliveries:
    """Gives what a test wants; `asked` has how many were wanted each time."""

    def __init__(self, due):
        self.due = due
        self.asked = []

    def take(self, most, lease_s):
        self.asked.append(most)
        return self.due


class FakeLedger:
    def __init__(self, due):
        self.deliveries = FakeDeliveries(due)


def test_threads_that_the_system_does_not_start_take_no_room_and_hold_up_no_other(settings, monkeypatch):
    ledger = FakeLedger([("c261123-143355-7f3a2b", 1), ("c261123-143355-7f3a2c", 1)])
    sender = WebhookSender(settings, ledger)
    refused = []

    def refuse(thread):
        refused.append(thread.name)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(AT_ONCE):
            sender.run()
    ledger.deliveries.due = []
    sender.run()

    assert ledger.deliveries.asked == [AT_ONCE] * (AT_ONCE + 1)
    assert len(refused) == 2 * AT_ONCE
