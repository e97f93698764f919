"""Pushed images go before the batches of shards, and nobody waits for ever."""

import threading
import time

import pytest

from tests.support.server import wait_until
from workers import device_gate
from workers.device_gate import DeviceGate, slots_of_device

SOON_S = 10.0


class Users:
    """Threads that use a gate; `order` has their names as they got their slots."""

    def __init__(self, gate):
        self.gate = gate
        self.order = []
        self.threads = []
        self.released = {}

    def start(self, name, enter):
        """Start a thread that holds the gate until it is released, and wait until it has it, or waits for it."""
        self.released[name] = threading.Event()

        def use():
            with enter() as granted:
                self.order.append((name, granted) if granted is not None else name)
                assert self.released[name].wait(SOON_S)

        before = self.num_settled
        thread = threading.Thread(target=use)
        thread.start()
        self.threads.append(thread)
        wait_until(lambda: self.num_settled > before, what="slots are granted")

    @property
    def num_settled(self):
        return len(self.order) + len(self.gate._pushes) + len(self.gate._batches)

    def shard(self, name, slots=1):
        self.start(name, lambda: self.gate.shard(slots))

    def push(self, name, slots=1, **options):
        self.start(name, lambda: self.gate.push(slots, **options))

    def release(self, *names):
        """Let these end, each when it has its slots, one after another."""
        for name in names:
            wait_until(
                lambda name=name: any(name in (each, each[0]) for each in self.order),
                what="the slots are granted",
                timeout_s=SOON_S,
            )
            self.released[name].set()

    def end(self):
        for event in self.released.values():
            event.set()
        for thread in self.threads:
            thread.join(SOON_S)
        assert not any(thread.is_alive() for thread in self.threads)
        assert self.gate._free == self.gate.slots


@pytest.fixture
def users(monkeypatch):
    monkeypatch.setattr(device_gate, "LONGEST_SHARD_WAIT_S", 60.0)  # no batch is old on a machine that is busy
    users = Users(DeviceGate(2))
    yield users
    users.end()


def test_a_push_goes_before_batches_that_have_waited_longer(users):
    users.shard("running")
    users.shard("running too")
    users.shard("first")
    users.shard("second")
    users.push("push")

    users.release("running", "push")
    wait_until(lambda: len(users.order) == 4, what="slots are granted")
    users.release("running too", "first")
    wait_until(lambda: len(users.order) == 5, what="slots are granted")

    assert users.order == ["running", "running too", ("push", 1), "first", "second"]


def test_a_push_that_wants_the_whole_device_waits_for_what_runs_only(users):
    users.shard("running")
    users.push("whole", 2)
    users.shard("later")
    assert users.order == ["running"]  # the free slot is kept for the push

    users.release("running", "whole")
    wait_until(lambda: len(users.order) == 3, what="slots are granted")

    assert users.order == ["running", ("whole", 2), "later"]


def test_a_push_may_go_on_with_fewer_slots_than_it_wants(users):
    users.shard("running")
    users.push("some", 2, at_least=1)
    assert users.order == ["running", ("some", 1)]

    users.release("running", "some")
    wait_until(lambda: users.gate._free == 2, what="slots are granted")
    users.push("all", 2, at_least=1)

    assert users.order[-1] == ("all", 2)


def test_a_batch_that_has_waited_for_long_goes_before_pushes(users, monkeypatch):
    monkeypatch.setattr(device_gate, "LONGEST_SHARD_WAIT_S", 0.0)
    users.push("one", 2)
    users.push("two", 2)
    users.shard("batch")
    users.push("three", 2)

    users.release("one", "batch", "two")
    wait_until(lambda: len(users.order) == 4, what="slots are granted")

    assert users.order == [("one", 2), "batch", ("two", 2), ("three", 2)]


def test_an_exception_gives_the_slots_back(users):
    for enter in (users.gate.push, users.gate.shard):
        with pytest.raises(ValueError, match="in the batch"), enter(2):
            raise ValueError("in the batch")

    assert users.gate._free == 2


def test_who_is_interrupted_while_waiting_leaves_the_queue(users):
    class Interrupted:
        def acquire(self):
            raise KeyboardInterrupt

    users.shard("running", 2)
    waiter = device_gate._Waiter(2, 2, ready=Interrupted())
    users.gate._pushes.append(waiter)
    users.gate._leave(users.gate._pushes, waiter)
    users.shard("next")

    users.release("running")
    wait_until(lambda: len(users.order) == 2, what="slots are granted")

    assert users.order == ["running", "next"]


def test_slots_that_were_granted_to_who_is_interrupted_are_free_again(users):
    users.shard("running", 2)
    waiter = device_gate._Waiter(1, 1)
    waiter.ready.acquire()
    users.gate._pushes.append(waiter)
    users.release("running")
    wait_until(lambda: waiter.granted == 1, what="slots are granted")

    users.gate._leave(users.gate._pushes, waiter)

    assert users.gate._free == 2


def test_more_slots_than_the_device_has_are_all_slots():
    gate = DeviceGate(2)

    with gate.push(8) as granted:
        assert granted == 2
    with gate.shard(8):
        assert gate._free == 0


@pytest.mark.parametrize(("slots", "num_streams", "taken"), [(2, 2, 1), (2, 1, 2), (8, 1, 8), (8, 3, 2), (1, 4, 1)])
def test_an_engine_with_few_streams_takes_more_slots_a_batch(slots, num_streams, taken):
    assert DeviceGate(slots).slots_of(num_streams) == taken


def test_the_bound_is_the_longest_recent_batch_of_a_shard():
    gate = DeviceGate(1)
    assert gate.bound_ms == 0.0
    with gate.push():
        pass
    assert gate.bound_ms == 0.0

    now = time.perf_counter()
    gate._batch_s.extend([(now - 1e3, 0.5)] + [(now, 0.004)] * 499 + [(now, 0.090)] * 10)
    assert gate.bound_ms == 90.0
    gate._batch_s.extend([(now, 0.004)] * 510)

    assert gate.bound_ms == 4.0
    with gate.shard():
        pass
    assert len(gate._batch_s) == 512


def test_a_line_is_open_until_the_last_one_is_closed():
    gate = DeviceGate(1)
    seen = [gate.line_open]
    for change in (gate.line_opened, gate.line_opened, gate.line_closed, gate.line_closed):
        change()
        seen.append(gate.line_open)

    assert seen == [False, True, True, True, False]


def test_many_threads_never_hold_more_slots_than_there_are():
    gate, held, most, lock = DeviceGate(3), 0, 0, threading.Lock()

    def use(number):
        nonlocal held, most
        for turn in range(200):
            slots = 1 + (number + turn) % 3
            with gate.push(slots, at_least=1) if number % 2 else gate.shard(slots) as granted:
                with lock:
                    held += granted or slots
                    most = max(most, held)
                with lock:
                    held -= granted or slots

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (most, gate._free, gate._pushes, gate._batches) == (3, 3, type(gate._pushes)(), type(gate._pushes)())


def test_a_cpu_has_a_slot_for_each_core_and_a_gpu_one_for_each_stream():
    from modeling.inference.engines.torch_engine import CudaGraphEngine

    assert slots_of_device("cpu") >= 1
    assert slots_of_device("cuda:1") == CudaGraphEngine.num_streams
