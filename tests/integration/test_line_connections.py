"""Commands that are sent past redis-py's calls: replies in order, errors in their place, connections that died."""

import contextlib
import gc
import time

import pytest
import redis

from orchestrator.contract.lines.channel import open_channel
from orchestrator.contract.lines.commands import LineCommands, require_all
from orchestrator.contract.lines.connections import LARGE_BYTES, Connections, connections_of
from orchestrator.contract.lines.requests import ImagePath, Push
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import SERVER_ERRORS, connect, connect_raw
from tests.support.line_worker import enter_line, make_line
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.integration


def test_replies_come_in_order_and_an_error_in_its_place(server: Server):
    connections = Connections(connect_raw(server.url))
    image = b"\r\n\x00$5" * 20_000

    replies = connections.send(
        [("SET", "k", image, "PX", 60_000), ("SET", "é", image[:LARGE_BYTES]), ("HGET", "k", "field"), ("GET", "k")]
    )

    stored, also_stored, failed, read = replies
    assert (stored, also_stored, read) == (b"OK", b"OK", image)
    assert isinstance(failed, redis.ResponseError)
    assert connections.send([]) == []


def test_a_connection_that_the_server_closed_is_replaced(own_server: Server):
    connections = Connections(connect_raw(own_server.url))
    assert connections.send([("PING",)]) == [b"PONG"]

    own_server.kill()
    with pytest.raises(SERVER_ERRORS):
        connections.send([("PING",)])
    own_server.start()

    assert connections.send([("PING",)]) == [b"PONG"]


def test_no_reply_is_taken_for_that_of_a_later_command(own_server: Server):
    connections = Connections(connect_raw(own_server.url, timeout_s=1))
    assert connections.send([("PING",)]) == [b"PONG"]

    own_server.freeze()
    with pytest.raises(redis.TimeoutError):
        connections.send([("ECHO", "lost")])
    own_server.thaw()

    assert connections.send([("ECHO", "later")]) == [b"later"]


def test_connections_that_are_lost_or_refused_leave_nothing_to_the_garbage_collector(own_server: Server):
    commands = LineCommands("post")
    setup = [*commands.load_scripts(), commands.subscribe("c1"), commands.epoch()]

    def ping() -> None:
        for client in (connect(own_server.url), connect_raw(own_server.url)):
            client.ping()
            client.close()

    def open_and_close() -> None:
        with contextlib.suppress(redis.RedisError):
            channel, replies = open_channel(connect_raw(own_server.url, protocol=3), setup, print)
            channel.close()
            require_all([*replies, redis.ResponseError("refused")])

    ping()
    open_and_close()
    gc.collect()
    gc.disable()
    try:
        ping()
        open_and_close()
        left = gc.collect()
        with own_server.refusing("disk"):
            gc.collect()
            open_and_close()
            refused = gc.collect()
    finally:
        gc.enable()

    assert (left, refused) == (0, 0)


def test_closing_the_client_closes_its_connections(server: Server):
    client, other = connect_raw(server.url), connect_raw(server.url)
    connections = Connections(client)
    [number] = connections.send([("CLIENT", "ID")])

    client.close()

    wait_until(lambda: str(number) not in {each["id"] for each in other.client_list()}, what="the connection ends")


def test_any_number_of_looks_at_lines_share_the_connections_of_a_client(server: Server):
    client = connect_raw(server.url)
    most = client.connection_pool.max_connections

    epochs = {LineStore(client, f"line{number % 3}").epoch() for number in range(most + 50)}

    assert epochs == {None}
    assert connections_of(client) is connections_of(client)
    assert connections_of(connect_raw(server.url)) is not connections_of(client)


def test_a_worker_gets_each_request_with_its_own_image_also_where_its_user_may_not_sort(server: Server):
    store = enter_line(server.url, make_line(roots=["/images"]))
    images = {f"1/{number}": bytes([number]) * (number + 1) for number in range(5)}
    pushes = [Push(key, f"{len(image)}", 60_000, len(image), "image", image) for key, image in images.items()]
    path = ImagePath("/images/a.jpg", 9, 1)
    store.admit([*pushes[:3], Push("1/path", "p", 60_000, 9, "path", path.encode()), *pushes[3:]], "client")

    taken = store.take("w", 3, 60_000, 1 << 20).held
    store.client.execute_command("ACL", "SETUSER", "default", "-sort")
    try:
        taken += store.take("w", 9, 60_000, 1 << 20).held
        nothing = store.take("w", 9, 60_000, 1 << 20).held
    finally:
        store.client.execute_command("ACL", "SETUSER", "default", "+sort")

    assert {held.key: held.image for held in taken if held.path is None} == images
    assert [held.path for held in taken if held.path] == [path]
    assert nothing == []


def test_a_wait_for_requests_tells_when_they_were_taken(server: Server):
    store = enter_line(server.url, make_line())
    before_s = time.monotonic()

    [taken] = store.take_for_each("w", [(store, 1, 60_000, 1 << 20)], wait_s=0.02)
    [again] = store.take_for_each("w", [(store, 1, 60_000, 1 << 20)], wait_s=0.02)

    passed_s = time.monotonic() - before_s
    assert 0.015 <= taken.waited_s <= passed_s
    assert 0.015 <= again.waited_s <= passed_s
