"""A gateway is killed under load, and another takes over: clients that push again with their items get one answer."""

import contextlib
import threading
from functools import partial

import httpx2
import pytest

from orchestrator.contract.lines.answers import decode_record
from orchestrator.stack.server import free_port
from tests.support.gateway_processes import GatewayProcess, push_until_answered
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import wait_until

pytestmark = pytest.mark.integration
NUM_CLIENTS, NUM_ITEMS = 4, 40


def answers_at(port: int) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    return False


def test_every_item_has_one_answer_while_gateways_are_killed(server, tmp_path):
    store = enter_line(server.url, make_line(deadline_ms=20_000))
    ports = [free_port(), free_port()]
    gateways = [GatewayProcess.of(tmp_path, server.url, port) for port in ports]
    for gateway in gateways:
        gateway.start()
    answers = {}

    def push(client):
        with httpx2.Client(timeout=30) as http:
            for number in range(NUM_ITEMS):
                item = f"{client}-{number}"
                answers[item], _ = push_until_answered(http, ports, item)

    with line_worker(server.url) as worker:
        threads = [threading.Thread(target=push, args=(client,)) for client in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for place, share in ((0, 0.2), (1, 0.5), (0, 0.7)):
            wait_until(lambda share=share: len(answers) > share * NUM_CLIENTS * NUM_ITEMS, what="some are answered")
            gateways[place].kill()
            gateways[place].start()
        for thread in threads:
            thread.join()
    wait_until(partial(answers_at, ports[1]), what="the one that was killed first is there again")
    codes = [gateway.stop() for gateway in gateways]

    records = {
        record.item: record for value in store.client.hvals(store.key("answers")) for record in [decode_record(value)]
    }
    assert len(answers) == len(records) == NUM_CLIENTS * NUM_ITEMS
    assert {item: (each["bin"], each["reason"]) for item, each in answers.items()} == {
        item: (record.bin, record.reason) for item, record in records.items()
    }
    assert len(worker.taken) == len(set(worker.taken))
    assert codes[1] == 0  # the other one may have been told to end before it had begun
