"""The scripts of a line against a model in Python, through any sequence of pushes, workers, deaths and sweeps.

Nothing waits: a lease runs out by being renewed for no time, and a deadline passes by being moved into the past.
"""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.contract.lines.answers import Verdict, decode_record, encode_facts
from orchestrator.contract.lines.requests import Decided, GivenAnswer, Push
from orchestrator.contract.lines.store import LineStore
from tests.support.line_worker import enter_line, make_line
from tests.support.replies import Replies
from tests.support.server import Server

pytestmark = pytest.mark.integration

LONG_MS = 3_000_000
MAX_REQUESTS, MAX_BYTES = 5, 20
MAX_DELIVERIES = 3
KEYS = st.sampled_from([f"1/{name}" for name in "abcdefghijkl"])
ASK = st.sampled_from([False, False, False, True])
WORKERS = st.sampled_from(["w1", "w2"])
CLIENTS = st.sampled_from(["c1", "c2"])
DIGESTS = st.sampled_from(["aa", "bb"])
IN_TIME, LATE, ALONE = Verdict("1"), Verdict("F", "late", "device"), Verdict("F", "no_server")
Seen = tuple[str, str | None]


@dataclass
class Waiting:
    """A request that has no answer. holder: who has a lease on it. last: who took it last, and did not hand it back."""

    digest: str
    size: int
    deadline: int
    clients: list[str]
    overdue: bool = False
    holder: str | None = None
    last: str | None = None
    expired: bool = False
    deliveries: int = 0


@dataclass
class Model:
    """What a server must have."""

    waiting: dict[str, Waiting] = field(default_factory=dict)
    answers: dict[str, tuple[Seen, str]] = field(default_factory=dict)  # bin and reason, and the digest
    replies: dict[str, list[str]] = field(default_factory=lambda: {"c1": [], "c2": []})
    records: dict[str, bytes] = field(default_factory=dict)  # as they were first seen

    def finish(self, key: str, seen: Seen, digest: str) -> None:
        """Store the answer, unless there is one, and reply to the clients of the request."""
        waiting = self.waiting.pop(key, None)
        self.answers.setdefault(key, (seen, waiting.digest if waiting else digest))
        for client in waiting.clients if waiting else ():
            self.replies[client].append(key)


class LineMachine(RuleBasedStateMachine):
    """Clients push, settle and deliver; workers take, renew, answer, hand back and die; time passes; all is lost."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.line = make_line(max_requests=MAX_REQUESTS, max_bytes=MAX_BYTES, keep_images_s=0)
        self.start_empty()
        self.told = {client: Replies(self.store, client) for client in self.model.replies}

    def start_empty(self) -> None:
        self.server.empty()
        self.store: LineStore = enter_line(self.server.url, self.line)
        self.paused = False
        self.model = Model()

    # Clients

    @rule(
        key=KEYS, digest=DIGESTS, client=CLIENTS, size=st.integers(1, 8), more_ms=st.integers(1, 9), ask=st.booleans()
    )
    def admit(self, key: str, digest: str, client: str, more_ms: int, size: int, ask: bool) -> None:
        kind, image = ("ask", b"") if ask else ("image", b"x" * size)
        push = Push(key, digest, LONG_MS + 1000 * more_ms, size, kind, image)

        (answer,) = self.store.admit([push], client)

        waiting = self.model.waiting.get(key)
        if key in self.model.answers:
            verdict = "answered" if self.model.answers[key][1] == digest else "conflict"
            assert (answer.verdict, answer.record) == (verdict, self.model.records[key])
        elif waiting is not None:
            assert answer.verdict == ("in_flight" if waiting.digest == digest else "conflict")
            waiting.clients += [client] if client not in waiting.clients else []
        elif self.paused:
            assert answer.verdict == "paused"
        elif len(self.model.waiting) >= MAX_REQUESTS or self.num_bytes() + size > MAX_BYTES:
            assert answer.verdict == "busy"
        elif ask:
            assert answer.verdict == "welcome"
        else:
            assert answer.verdict == "admitted"
            deadline = int(self.store.client.hget(self.store.key(f"r:{key}"), "deadline"))
            self.model.waiting[key] = Waiting(digest, size, deadline, [client])

    def num_bytes(self) -> int:
        return sum(waiting.size for waiting in self.model.waiting.values())

    @precondition(lambda self: self.model.waiting)
    @rule(key=KEYS, client=CLIENTS)
    def push_without_time(self, key: str, client: str) -> None:
        if key not in self.model.waiting and key not in self.model.answers:
            assert self.store.admit([Push(key, "aa", 0, 1, "image", b"x")], client)[0].verdict == "overdue"

    def known(self, data: st.DataObject) -> str:
        """A key that the server may know."""
        return data.draw(st.sampled_from([*sorted(self.model.waiting), *sorted(self.model.answers)[:2], "1/z"]))

    def some(self, data: st.DataObject) -> list[str]:
        return [self.known(data) for _ in range(data.draw(st.integers(1, 3)))]

    @rule(digest=DIGESTS, client=CLIENTS, more_ms=st.lists(st.integers(1, 9), min_size=2, max_size=4))
    def push_several(self, digest: str, client: str, more_ms: list[int]) -> None:
        free = (f"1/{name}" for name in "abcdefghijkl")
        free = (key for key in free if key not in self.model.waiting and key not in self.model.answers)
        for each_ms, key in zip(more_ms, free, strict=False):
            self.admit(key, digest, client, more_ms=each_ms, size=1 + each_ms % 4, ask=False)

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data(), digest=DIGESTS, client=CLIENTS, alone=st.booleans())
    def decide(self, data: st.DataObject, digest: str, client: str, alone: bool) -> None:
        if alone:
            self.deliver(self.some(data), digest)
        else:
            self.settle(self.some(data), digest, client)

    def settle(self, keys: list[str], digest: str, client: str) -> None:
        records = self.store.settle([Decided(key, ALONE, digest) for key in keys], client)

        for key, record in zip(keys, records, strict=True):
            waiting = self.model.waiting.get(key)
            others = waiting is not None and (waiting.digest, waiting.clients[0]) != (digest, client)
            if others and not waiting.overdue:
                assert decode_record(record).reason == "no_server"  # this client's own: nothing is stored
                continue
            if waiting is not None:
                self.finish_late(key)
            else:
                self.model.finish(key, ("F", "no_server"), digest)
            self.remember(partly=True)
            assert record == self.model.records[key]

    def deliver(self, keys: list[str], digest: str) -> None:
        differ = self.store.deliver([Decided(key, ALONE, digest) for key in keys])

        for key in keys:
            if key not in self.model.answers:
                self.model.finish(key, ("F", "no_server"), digest)
        assert differ == sum(self.model.answers[key][0][0] != "F" for key in keys)

    # Workers

    @precondition(lambda self: self.model.waiting)
    @rule(worker=WORKERS, most=st.integers(1, 3), most_bytes=st.sampled_from([1, 8, 1 << 20]))
    def take(self, worker: str, most: int, most_bytes: int) -> None:
        held = self.store.take(worker, most, LONG_MS, most_bytes).held

        self.recover_expired()
        ready = [key for key, waiting in self.model.waiting.items() if waiting.holder is None]
        expected, num_bytes = [], 0
        for key in sorted(ready, key=lambda key: (self.model.waiting[key].deadline, key))[:most]:
            waiting = self.model.waiting[key]
            if waiting.overdue:
                self.finish_late(key)
                continue
            num_bytes += waiting.size
            if num_bytes > most_bytes and expected:
                break
            waiting.deliveries += waiting.last != worker
            waiting.holder = waiting.last = worker
            expected.append((key, waiting.deadline, waiting.deliveries, b"x" * waiting.size))
        assert [(each.key, each.deadline_ms, each.deliveries, each.image) for each in held] == expected

    @precondition(lambda self: self.held())
    @rule(worker=WORKERS, most=st.integers(1, 4))
    def a_worker_dies_and_another_takes(self, worker: str, most: int) -> None:
        dead = "w2" if worker == "w1" else "w1"
        self.renew([key for key, waiting in self.held().items() if waiting.holder == dead], dead, dies=True)
        self.take(worker, most, 1 << 20)

    @precondition(lambda self: self.model.waiting)
    @rule(num_deaths=st.integers(1, MAX_DELIVERIES))
    def images_kill_workers(self, num_deaths: int) -> None:
        for worker in ("w1", "w2", "w1")[:num_deaths]:
            self.take(worker, MAX_REQUESTS, 1 << 20)
            self.renew([key for key, waiting in self.held().items() if waiting.holder == worker], worker, dies=True)

    def held(self) -> dict[str, Waiting]:
        return {key: waiting for key, waiting in self.model.waiting.items() if waiting.holder is not None}

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data(), worker=WORKERS, dies=st.booleans())
    def renew_some(self, data: st.DataObject, worker: str, dies: bool) -> None:
        self.renew(self.some(data), worker, dies)

    def renew(self, keys: list[str], worker: str, dies: bool) -> None:
        lost = self.store.renew(worker, 0 if dies else LONG_MS, keys)

        kept = {key for key in keys if key in self.model.waiting and self.model.waiting[key].holder == worker}
        assert lost == set(keys) - kept
        for key in kept:
            self.model.waiting[key].expired = dies

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data(), worker=WORKERS)
    def hand_back(self, data: st.DataObject, worker: str) -> None:
        keys = self.some(data)

        self.store.hand_back(worker, keys)

        for key in keys:
            waiting = self.model.waiting.get(key)
            if waiting is not None and waiting.holder == worker:
                waiting.holder, waiting.last, waiting.expired = None, None, False
                waiting.deliveries -= 1

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        keys = self.some(data)
        facts = encode_facts(label="a", score=0.9, model="m@1", map_version=1)

        stood = self.store.answer([GivenAnswer(key, IN_TIME, LATE, facts) for key in keys])

        for key, stands in zip(keys, stood, strict=True):
            waiting = self.model.waiting.get(key)
            same = self.model.answers.get(key, (None, ""))[0] == ("1", None)  # the reply to it may have been lost
            assert stands == (same if waiting is None else not waiting.overdue)
            if waiting is not None:
                self.model.finish(key, ("F", "late") if waiting.overdue else ("1", None), "")

    # Clients and workers, and what happens

    @precondition(lambda self: any(waiting.overdue or waiting.expired for waiting in self.model.waiting.values()))
    @rule()
    def sweep(self) -> None:
        next_ms = self.store.sweep(1000)

        for key in [key for key, waiting in self.model.waiting.items() if waiting.overdue]:
            self.finish_late(key)
        self.recover_expired()
        assert next_ms == 1000

    @precondition(lambda self: len(self.model.waiting) > 1)
    @rule(data=st.data())
    def a_deadline_passes(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.waiting)))
        self.pass_deadline(key)

    def pass_deadline(self, key: str) -> None:
        waiting, client = self.model.waiting[key], self.store.client
        waiting.overdue, waiting.deadline = True, waiting.deadline - 2 * LONG_MS
        client.hset(self.store.key(f"r:{key}"), "deadline", waiting.deadline)
        for name in ("ready", "deadlines"):
            client.zadd(self.store.key(name), {key: waiting.deadline}, xx=True)

    @precondition(lambda self: self.paused or len(self.model.waiting) > 1)
    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.paused = paused
        self.store.client.hset(self.store.key("line"), "paused", int(paused))

    @precondition(lambda self: len(self.model.answers) > 3)
    @rule()
    def the_server_is_emptied(self) -> None:
        self.server.empty()
        nothing = (
            self.store.settle([Decided("1/a", ALONE, "aa")], "c1"),
            self.store.deliver([Decided("1/a", ALONE, "aa")]),
        )
        assert nothing == ([], None)
        assert self.store.admit([Push("1/a", "aa", LONG_MS, 1, "image", b"x")], "c1")[0].verdict == "unknown"
        self.start_empty()

    def finish_late(self, key: str) -> None:
        self.model.finish(key, ("F", "late" if self.paused else "no_worker"), "")

    def recover_expired(self) -> None:
        """Others may have what dead workers held; what was delivered too often ends as crashed."""
        for key in [key for key, waiting in self.model.waiting.items() if waiting.expired]:
            waiting = self.model.waiting[key]
            if waiting.deliveries >= MAX_DELIVERIES:
                self.model.finish(key, ("F", "crashed"), "")
            else:
                waiting.holder, waiting.expired = None, False

    # What always holds

    @invariant()
    def what_waits_is_known_everywhere_and_what_is_answered_nowhere(self) -> None:
        waiting, key = self.model.waiting, self.store.key
        with self.store.client.pipeline(transaction=False) as pipeline:
            for name in ("ready", "leases", "deadlines"):
                pipeline.zrange(key(name), 0, -1)
            pipeline.hget(key("line"), "bytes")
            pipeline.keys("*:r:*")
            ready, leases, deadlines, num_bytes, requests = pipeline.execute()

        held = {name for name, each in waiting.items() if each.holder is not None}
        assert {name.decode() for name in leases} == held
        assert {name.decode() for name in ready} == set(waiting) - held
        assert {name.decode() for name in deadlines} == set(waiting)
        assert {name.decode().partition(":r:")[2] for name in requests} == set(waiting)
        assert int(num_bytes or 0) == self.num_bytes()

    @invariant()
    def a_record_never_changes_and_is_told_once_to_each_who_asked(self) -> None:
        self.remember()
        for client, expected in self.model.replies.items():
            told = self.told[client].read()
            assert sorted(key for key, _ in told) == sorted(expected)
            assert all(record == self.model.records[key] for key, record in told)
            expected.clear()

    def remember(self, *, partly: bool = False) -> None:
        """Records are what the model has, and those that were seen before are the same bytes."""
        found = {key.decode(): record for key, record in self.store.client.hgetall(self.store.key("answers")).items()}
        answered = {key.decode() for key in self.store.client.zrange(self.store.key("answered"), 0, -1)}
        assert set(found) == answered
        assert partly or answered == set(self.model.answers)
        for key, record in found.items():
            if partly and key not in self.model.answers:
                continue
            assert self.model.records.setdefault(key, record) == record
            answer, (seen, digest) = decode_record(record), self.model.answers[key]
            assert (answer.bin, answer.reason, json.loads(record)["digest"]) == (*seen, digest)

    def teardown(self) -> None:
        """After any events: the deadlines pass, somebody sweeps, and each request has its one record."""
        for key in self.model.waiting:
            self.pass_deadline(key)
        self.sweep()
        assert self.model.waiting == {}
        self.what_waits_is_known_everywhere_and_what_is_answered_nowhere()
        self.a_record_never_changes_and_is_told_once_to_each_who_asked()


@pytest.mark.hypothesis  # like those with @given, which hypothesis marks itself
def test_a_line_gives_one_record_for_every_request_through_any_sequence_of_events(server):
    run_state_machine_as_test(
        lambda: LineMachine(server),
        settings=settings(stateful_step_count=40),
    )
