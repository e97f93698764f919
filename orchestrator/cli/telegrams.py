"""`pigeonhole telegrams`."""

import contextlib
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.lines.options import DURATION, LineName
from orchestrator.cli.output import print_message
from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.telegrams.json_form import JsonForm
from orchestrator.telegrams.messages import Form

if TYPE_CHECKING:
    from orchestrator.contract.lines.answers import Answer
    from orchestrator.contract.lines.settings import Line
    from orchestrator.contract.lines.store import LineStore
    from orchestrator.lines.client import AsyncLineClient
    from orchestrator.telegrams.service import Network
    from orchestrator.telegrams.spool import Spool

_SEEN_S = 5.0


@dataclass(frozen=True, slots=True)
class _Options:
    host: str
    port: int
    allowed: tuple["Network", ...]
    heartbeat_s: float
    form: Form
    answers: Path


@click.command()
@click.option("--line", required=True, type=LineName(), help="Line that answers.")
@click.option("--port", required=True, type=click.IntRange(1, 65535), help="TCP port to listen at.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--allow", multiple=True, metavar="ADDRESS", help="Address or network that may connect. May be repeated.")
@click.option(
    "--fields", type=click.Path(path_type=Path), help="TOML file that describes fixed fields; default: JSON lines."
)
@click.option(
    "--heartbeat", "heartbeat_ms", type=DURATION, default="5s", show_default=True,
    help="Time between two telegrams at most; after three of them without any the peer is cut off.",
)  # fmt: skip
def telegrams(line: str, port: int, host: str, allow: tuple[str, ...], fields: Path | None, heartbeat_ms: int) -> None:
    """Answer controllers that speak telegrams over TCP.

    A controller sends items, each with the bytes of its image or a path; each telegram is acknowledged, and each item
    is answered with its bin. What was acknowledged is answered also after a cut and a restart. Only this machine may
    connect, unless --host and --allow say otherwise: there is no password and no encryption.

    \b
    Examples:
      pigeonhole telegrams --line post --port 5010
      pigeonhole telegrams --line post --port 5010 --host 0.0.0.0 --allow 10.0.7.0/24 --fields sorter.toml
    """
    import asyncio

    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.contract.settings import get_settings
    from orchestrator.telegrams.field_form import FieldForm
    from orchestrator.telegrams.service import check_host, parse_networks
    from orchestrator.telegrams.spool import Spool

    if not 100 <= heartbeat_ms <= 600_000:
        raise UsageError(f"--heartbeat is 100ms to 10m, not {heartbeat_ms} ms")
    allowed = parse_networks(allow)
    check_host(host, allowed)
    form: Form = JsonForm() if fields is None else FieldForm.read(fields)
    view = LinesView()
    found = view.get(line)
    settings = found.settings
    if isinstance(form, FieldForm):
        form.check_bins(
            {settings.fallback, settings.review, *(name for bins in settings.bins.values() for name in bins)}
        )
    logging.getLogger("orchestrator.lines").setLevel(logging.ERROR)
    spool = Spool(get_settings().home / "telegrams" / f"{line}-{port}")
    try:
        options = _Options(host, port, allowed, heartbeat_ms / 1000, form, view.answers_folder(line))
        asyncio.run(_serve(found, view.store(found), spool, options))
    finally:
        spool.close()


async def _serve(line: "Line", store: "LineStore", spool: "Spool", options: _Options) -> None:
    import asyncio

    from orchestrator.contract.lines.answers import request_key
    from orchestrator.contract.lines.lookup import look_up
    from orchestrator.contract.settings import get_settings
    from orchestrator.lines.client import AsyncLineClient
    from orchestrator.lines.line_server import SERVER_FAULTS
    from orchestrator.lines.request import check_item, check_pass
    from orchestrator.telegrams.connection import MOST_LARGE, Terms
    from orchestrator.telegrams.items import Items
    from orchestrator.telegrams.service import Service

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    client = AsyncLineClient(line.name, get_settings().require_server_url(), fallback=line.settings.fallback)
    try:
        archive = AnswerArchive(options.answers)

        def find(item: str, pass_: int) -> "Answer | None":
            return look_up(store, archive, request_key(item, pass_))

        def discharge(item: str, pass_: int, bin_: str) -> None:
            store.discharge(request_key(check_item(item), check_pass(pass_)), bin_)

        items = Items(spool, client, line.settings, find, SERVER_FAULTS)
        client.start()
        await _wait_until_seen(client)
        await items.restore()
        terms = Terms(
            options.form, items, discharge, SERVER_FAULTS, options.heartbeat_s, line.settings.max_image_bytes,
            asyncio.Semaphore(MOST_LARGE),
        )  # fmt: skip
        print_message(f"line {line.name}: telegrams at {options.host} port {options.port}")
        await Service(terms, options.allowed).run(options.host, options.port, stopping)
    except OSError as err:
        raise UnavailableError(f"cannot listen at {options.host} port {options.port}: {err.strerror or err}") from err
    finally:
        await client.wait_for_reports()
        client.abandon()


async def _wait_until_seen(client: "AsyncLineClient") -> None:
    """Wait a while until the client knows the line: before, it would decide the first items alone."""
    import asyncio

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEEN_S):
            while client.line is None:
                await asyncio.sleep(0.01)
