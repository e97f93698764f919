"""Connections in this process: a client that the test answers for, and peers that behave badly."""

import asyncio
import contextlib
import json
import time

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.answers import Answer
from orchestrator.telegrams import connection, items, service
from orchestrator.telegrams.connection import Terms
from orchestrator.telegrams.field_form import FieldForm, FieldSettings, Layout
from orchestrator.telegrams.items import Items
from orchestrator.telegrams.json_form import JsonForm
from orchestrator.telegrams.service import Service, check_host, parse_networks
from orchestrator.telegrams.spool import Facts, Spool
from tests.support.line_worker import make_line

SETTINGS = make_line(max_image_bytes=1000).settings


class FakeClient:
    """Answers each push when the test says so; answers at once unless it is held."""

    def __init__(self):
        self.pushed = []
        self.held = False

    async def submit(self, image, item, pass_, *, deadline, triggered_at, by_path):
        if by_path and not image.startswith("/share/"):
            raise ValueError(f"{image} lies under no root of line 'post'")
        future = asyncio.get_running_loop().create_future()
        self.pushed.append((item, pass_, image, deadline, future))
        if not self.held:
            future.set_result(Answer(item, pass_, "1", label="a", score=0.9, ms=time.monotonic()))
        return future


class Peer:
    """One connection of a controller."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.seq = 0

    async def send(self, kind, image=b"", **values):
        self.seq += 1
        await self.raw(json.dumps({"type": kind, "seq": self.seq, **values}).encode() + b"\n" + image)

    async def raw(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, *kinds):
        """The next telegram of these kinds."""
        while True:
            async with asyncio.timeout(30):
                telegram = json.loads(await self.reader.readuntil(b"\n"))
            if telegram["type"] in kinds:
                return telegram

    async def is_cut(self):
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(1000):
                    pass
        return True


class Bench:
    """A service at a free port of this process."""

    def __init__(self, folder, *, form=None, heartbeat_s=5.0, allowed=(), discharge=lambda *_: None):
        self.folder, self.client = folder, FakeClient()
        self.look_up = lambda item, pass_: None
        self.form, self.heartbeat_s, self.allowed, self.discharge = form or JsonForm(), heartbeat_s, allowed, discharge

    async def __aenter__(self):
        self.spool = Spool(self.folder)
        self.items = Items(self.spool, self.client, SETTINGS, self.look_up, (OSError,))
        await self.items.restore()
        terms = Terms(self.form, self.items, self.discharge, (OSError,), self.heartbeat_s, 1000, asyncio.Semaphore(8))
        self.service = Service(terms, self.allowed)
        self.server = await asyncio.start_server(self.service._accept, "127.0.0.1", 0, limit=8192)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in list(self.service._tasks):
            task.cancel()
        await asyncio.gather(*self.service._tasks, return_exceptions=True)
        self.spool.close()

    async def connect(self):
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))


def run(main):
    asyncio.run(main())


def test_an_item_is_acknowledged_then_answered_and_the_answer_acknowledged(tmp_path):
    async def main():
        async with Bench(tmp_path) as bench:
            peer = await bench.connect()
            await peer.send("item", b"image", item="4711", bytes=5, deadline_ms=800)
            assert await peer.receive("ack", "answer") == {"type": "ack", "seq": 1}
            answer = await peer.receive("answer")
            assert answer == {"type": "answer", "seq": 1, "item": "4711", "pass": 1, "bin": "1", "label": "a",
                              "score": 0.9}  # fmt: skip
            await peer.raw(b'{"type":"ack","seq":1}\n')
            assert bench.client.pushed[0][:4] == ("4711", 1, b"image", 0.8)
            await until(lambda: not list(tmp_path.glob("*.*")))

    run(main)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_an_answer_that_was_not_acknowledged_is_sent_again_over_the_next_connection(tmp_path):
    async def main():
        async with Bench(tmp_path) as bench:
            first = await bench.connect()
            await first.send("hello", controller="belt")
            await first.send("item", b"image", item="1", bytes=5)
            answer = await first.receive("answer")
            first.writer.transport.abort()
            second = await bench.connect()
            await second.send("hello", controller="belt")
            assert await second.receive("answer") == answer | {"again": 1}

    run(main)


def test_after_a_restart_items_are_pushed_again_and_answers_sent_again(tmp_path):
    async def main():
        async with Bench(tmp_path) as bench:
            peer = await bench.connect()
            await peer.send("hello", controller="belt")
            await peer.send("item", b"answered", item="1", bytes=8)
            await peer.receive("answer")
            bench.client.held = True
            await peer.send("item", b"waiting", item="2", bytes=7, **{"pass": 3})
            await peer.send("item", item="3", path="/share/3.jpg")
            assert (await peer.receive("ack"))["seq"] == 3
            assert (await peer.receive("ack"))["seq"] == 4
        async with Bench(tmp_path) as bench:
            await until(lambda: len(bench.client.pushed) == 2)
            pushed = sorted(push[:3] for push in bench.client.pushed)
            assert pushed == [("2", 3, b"waiting"), ("3", 1, "/share/3.jpg")]
            peer = await bench.connect()
            await peer.send("hello", controller="belt")
            items = []
            for number in range(1, 4):
                answer = await peer.receive("answer")
                items.append((answer["item"], answer["again"]))
                await peer.raw(b'{"type":"ack","seq":%d}\n' % number)
            assert sorted(items) == [("1", 1), ("2", 1), ("3", 1)]

    run(main)


def test_a_telegram_that_is_sent_again_is_one_item(tmp_path):
    async def main():
        async with Bench(tmp_path) as bench:
            bench.client.held = True
            peer = await bench.connect()
            for seq in (1, 1, 2):
                peer.seq = seq - 1
                await peer.send("item", b"image", item="1", bytes=5)
                assert await peer.receive("ack", "nak") == {"type": "ack", "seq": seq}
            await peer.send("item", b"other", item="1", bytes=5)
            assert "another image" in (await peer.receive("ack", "nak"))["error"]
            assert len(bench.client.pushed) == 1

    run(main)


def test_a_number_that_was_left_out_is_told(tmp_path):
    async def main():
        async with Bench(tmp_path) as bench:
            peer = await bench.connect()
            await peer.send("hello", controller="belt")
            peer.seq = 5
            await peer.send("item", b"image", item="1", bytes=5)
            assert await peer.receive("nak") == {"type": "nak", "seq": 6, "error": "seq 6 came, 2 was expected"}
            peer.seq = 1
            await peer.send("item", b"image", item="1", bytes=5)
            assert await peer.receive("ack") == {"type": "ack", "seq": 2}

    run(main)


def test_several_connections_of_a_controller_share_its_answers(tmp_path):
    async def main():
        async with Bench(tmp_path) as bench:
            bench.client.held = True
            peers = [await bench.connect() for _ in range(2)]
            for peer in peers:
                await peer.send("hello", controller="belt")
                await peer.receive("ack")
            for number in range(2):
                await peers[0].send("item", b"image", item=str(number), bytes=5)
                await peers[0].receive("ack")
            for push in bench.client.pushed:
                push[-1].set_result(Answer(push[0], 1, "1"))
            answers = [await peer.receive("answer") for peer in peers]  # neither is acknowledged: one each
            assert sorted(answer["item"] for answer in answers) == ["0", "1"]

    run(main)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"item": "1", "path": "/etc/passwd"}, "lies under no root"),
        ({"item": "1"}, "either bytes or a path"),
    ],
)
def test_a_telegram_that_cannot_be_carried_out_is_refused(tmp_path, values, why):
    async def main():
        async with Bench(tmp_path) as bench:
            peer = await bench.connect()
            await peer.send("item", **values)
            assert why in (await peer.receive("nak"))["error"]
            assert list(tmp_path.glob("*.*")) == []

    run(main)


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"\x00" * 100 + b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"x" * 20_000,
        b'{"type":"item","seq":1,"item":"1","bytes":1001}\n',
        b'{"type":"item","seq":1,"item":"1","bytes":999999999999}\n',
        b'{"type":"answer","item":"1"}\n',
        b'{"a":' * 1000 + b"\n",
    ],
)
def test_rubbish_costs_its_own_connection_only(tmp_path, data):
    async def main():
        async with Bench(tmp_path) as bench:
            good, bad = await bench.connect(), await bench.connect()
            await bad.raw(data)
            assert await bad.receive("nak")
            if b'"answer"' not in data:
                assert await bad.is_cut()
            await good.send("item", b"image", item="1", bytes=5)
            assert await good.receive("answer")

    run(main)


@pytest.mark.parametrize("data", [b"", b'{"type":', b'{"type":"item","seq":1,"item":"1","bytes":100}\nhalf'])
def test_a_peer_that_stalls_is_cut_off(tmp_path, monkeypatch, data):
    monkeypatch.setattr(connection, "BODY_S", 0.1)

    async def main():
        async with Bench(tmp_path, heartbeat_s=0.05) as bench:
            peer = await bench.connect()
            await peer.raw(data)
            assert await peer.is_cut()
            assert bench.client.pushed == []

    run(main)


def test_a_peer_that_acknowledges_nothing_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "ACK_S", 0.1)

    async def main():
        async with Bench(tmp_path) as bench:
            peer = await bench.connect()
            await peer.send("item", b"image", item="1", bytes=5)
            assert await peer.receive("answer")
            assert await peer.is_cut()
            assert len(list(tmp_path.glob("*.answer"))) == 1

    run(main)


def test_heartbeats_go_both_ways(tmp_path):
    async def main():
        async with Bench(tmp_path, heartbeat_s=0.3) as bench:
            peer = await bench.connect()
            for _ in range(5):  # longer than a silent peer is endured
                await peer.raw(b'{"type":"alive"}\n')
                assert await peer.receive("alive") == {"type": "alive"}

    run(main)


def test_more_connections_than_one_address_may_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "MOST_PER_ADDRESS", 3)

    async def main():
        async with Bench(tmp_path) as bench:
            peers = [await bench.connect() for _ in range(3)]
            for peer in peers:
                await peer.send("hello", controller="belt")
                assert await peer.receive("ack")
            assert await (await bench.connect()).is_cut()
            peers[0].writer.transport.abort()
            await until(lambda: len(bench.service._tasks) < 3)
            again = await bench.connect()
            await again.send("hello", controller="belt")
            assert await again.receive("ack")

    run(main)


def test_a_controller_that_never_acknowledges_cannot_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "MOST_ITEMS", 2)

    async def main():
        async with Bench(tmp_path) as bench:
            bench.client.held = True
            peer = await bench.connect()
            for number in range(3):
                await peer.send("item", b"image", item=str(number), bytes=5)
            kinds = [(await peer.receive("ack", "nak"))["type"] for _ in range(3)]
            assert kinds == ["ack", "ack", "nak"]

    run(main)


def test_where_an_item_went_is_acknowledged_once_the_server_has_it(tmp_path):
    reported = []

    def discharge(item, pass_, bin_):
        if item == "away":
            raise OSError("no server")
        reported.append((item, pass_, bin_))

    async def main():
        async with Bench(tmp_path, discharge=discharge) as bench:
            peer = await bench.connect()
            await peer.send("discharged", item="1", bin="3")
            assert await peer.receive("ack", "nak") == {"type": "ack", "seq": 1}
            await peer.send("discharged", item="away", bin="3")
            assert "send it again" in (await peer.receive("ack", "nak"))["error"]

    run(main)
    assert reported == [("1", 1, "3")]


def test_fixed_fields_carry_the_same(tmp_path):
    form = FieldForm(make_fields())

    async def main():
        async with Bench(tmp_path, form=form) as bench:
            peer = await bench.connect()
            await peer.raw(b"ITEM0142    00005\r\nimage")
            async with asyncio.timeout(30):
                assert await peer.reader.readuntil(b"\n") == b"ACKN01\n"
                assert await peer.reader.readuntil(b"\n") == b"DEST0142    001 \n"
            await peer.raw(b"ACKN01\n")
            await until(lambda: not list(tmp_path.glob("*.*")))

    run(main)


def make_fields():
    return FieldSettings(
        seq=2,
        telegrams={
            "item": Layout("ITEM", (("item", 6), ("bytes", 5))),
            "answer": Layout("DEST", (("item", 6), ("bin", 3), ("reason", 1))),
            "ack": Layout("ACKN"), "nak": Layout("NACK"), "alive": Layout("LIFE"),
        },
        codes={"bin": {"1": "001"}},
    )  # fmt: skip


def test_an_answer_whose_bin_no_field_can_hold_gets_the_fallback_bin(tmp_path):
    async def main():
        async with Bench(tmp_path, form=FieldForm(make_fields())) as bench:
            bench.client.held = True
            peer = await bench.connect()
            await peer.raw(b"ITEM0142    00005\nimage")
            await until(lambda: bench.client.pushed)
            bench.client.pushed[0][-1].set_result(Answer("42", 1, "a wide bin"))
            async with asyncio.timeout(30):
                await peer.reader.readuntil(b"\n")
                assert await peer.reader.readuntil(b"\n") == b"DEST0142    F  n\n"

    run(main)


def test_a_second_process_may_not_use_the_same_spool(tmp_path):
    first = Spool(tmp_path)

    with pytest.raises(UsageError, match="another process"):
        Spool(tmp_path)
    first.close()


def test_after_a_restart_the_server_is_waited_for_where_the_deadline_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "LOOK_AGAIN_S", 0.01)
    spool = Spool(tmp_path)
    spool.add(Facts("belt", "1", 1, "", time.time() - 1000, 1.0), b"image")
    spool.close()
    asked = []

    def look_up(item, pass_):
        asked.append((item, pass_))
        if len(asked) < 3:
            raise OSError("no server")
        return Answer(item, pass_, "1")

    async def main():
        bench = Bench(tmp_path)
        bench.look_up = look_up
        async with bench:
            peer = await bench.connect()
            await peer.send("hello", controller="belt")
            assert (await peer.receive("answer"))["bin"] == "1"
            assert bench.client.pushed == []

    run(main)
    assert asked == [("1", 1)] * 3


def test_half_written_files_of_a_power_cut_are_passed_over(tmp_path):
    (tmp_path / "000000000001.item").write_bytes(b"")
    (tmp_path / "000000000002.answer").write_bytes(b"{}")
    (tmp_path / "000000000003.tmp").write_bytes(b"x")
    spool = Spool(tmp_path)

    assert list(spool.restore()) == []
    spool.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "sorter"])
def test_a_host_that_others_reach_needs_to_say_who_may(host):
    with pytest.raises(UsageError, match="--allow"):
        check_host(host, ())
    check_host(host, parse_networks(["10.0.0.0/8"]))


def test_addresses_are_checked():
    with pytest.raises(UsageError, match="--allow takes an address"):
        parse_networks(["10.0.0.300"])


@pytest.mark.parametrize(
    ("address", "may"), [("10.0.7.5", True), ("::ffff:10.0.7.5", True), ("10.0.8.5", False), ("127.0.0.1", True),
                         ("fe80::1%eth0", False)],
)  # fmt: skip
def test_only_allowed_addresses_connect(address, may):
    terms = Terms(JsonForm(), None, None, (), 5.0, 1, None)

    assert Service(terms, parse_networks(["10.0.7.0/24"]))._may_connect(address) is may


def test_an_answer_that_the_fields_cannot_hold_does_not_hold_up_the_others(tmp_path):
    spool = Spool(tmp_path)
    for item in ("of other fields", "42"):
        facts = Facts("127.0.0.1", item, 1, "", time.time(), None)
        spool.answer(spool.add(facts, b"x"), facts, {"item": item, "pass": 1, "bin": "1"})
    spool.close()

    async def main():
        async with Bench(tmp_path, form=FieldForm(make_fields())) as bench:
            peer = await bench.connect()
            await peer.raw(b"LIFE00\n")
            async with asyncio.timeout(30):
                assert (await peer.reader.readuntil(b"\n")).startswith(b"DEST0142")
        assert sorted(path.name for path in tmp_path.glob("*.answer"))[0] == "000000000001.answer"

    run(main)
