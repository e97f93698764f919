"""`pigeonhole hotfolder`."""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from orchestrator.cli.lines.options import DURATION, SIZE, LineName
from orchestrator.cli.output import json_option, print_json_line, print_message, redraw_line
from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.limits import LONGEST_DEADLINE_MS

if TYPE_CHECKING:
    from orchestrator.contract.settings import Settings
    from orchestrator.hot_folder.run import Done, Runner

_REDRAW_S = 0.2
_LINE_EVERY_S = 60.0  # where standard error is not a terminal


@click.command("hotfolder")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--line", type=LineName(), help="Line that answers single images; its model answers folders and ZIPs.")
@click.option("--model", help="Model that answers where there is no line: name, name@version.")
@click.option("--by-bin", is_flag=True, help="Move files to done/BIN/ instead of writing a sidecar beside each.")
@click.option("--poll", "poll_ms", type=DURATION, default="1s", show_default=True, help="Time between two looks.")
@click.option(
    "--min-size", type=SIZE, default="1", show_default=True,
    help="Bytes of an image at least; a smaller file that stays so for a minute goes to error/.",
)  # fmt: skip
@click.option(
    "--deadline", "deadline_ms", type=DURATION, default="10m", show_default=True,
    help="Time for the line's answer; then the fallback bin.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="End when nothing is left in DIR/in.")
@json_option
def hot_folder(
    folder: Path, line: str | None, model: str | None, by_bin: bool, poll_ms: int, min_size: int, deadline_ms: int,
    once: bool, as_json: bool,
) -> None:  # fmt: skip
    """Answer what is put into DIR/in, and move it to DIR/done or DIR/error with its result.

    An image is taken once it is unchanged in two looks. Its answer is written beside it as NAME.json, or is the name of
    its folder (--by-bin). A folder or a ZIP is one job, with its manifest beside it. DIR/working holds what is in work.
    May be killed, started again, and run several times on one folder: each file gets one result.

    Hidden files, ~$*, *.tmp, *.part and what systems leave behind are left alone. With --json a line for each file.

    \b
    Examples:
      pigeonhole hotfolder /scans --line post
      pigeonhole hotfolder /scans --model letters --by-bin
      pigeonhole hotfolder /scans --line post --once --json
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.hot_folder.folders import open_hot_folder
    from orchestrator.hot_folder.jobs import Jobs
    from orchestrator.hot_folder.pushing import Pusher
    from orchestrator.hot_folder.results import Sorting
    from orchestrator.hot_folder.run import Runner
    from orchestrator.lines.client import LineClient

    if (line is None) == (model is None):
        raise UsageError("give either --line or --model")
    if not 10 <= poll_ms <= 3_600_000:
        raise UsageError(f"--poll is 10ms to 1h, not {poll_ms} ms")
    if not 1 <= deadline_ms <= LONGEST_DEADLINE_MS:
        raise UsageError(f"--deadline is 1ms to 1h, not {deadline_ms} ms")
    settings = get_settings()
    logging.getLogger("orchestrator.lines").setLevel(logging.ERROR)
    with _Display(as_json=as_json) as display, contextlib.ExitStack() as stack:
        model = _check(settings, line, model)
        opened = open_hot_folder(folder)
        runner = Runner(opened, poll_ms / 1000, min_size, display.done, display.say)
        display.describe = runner.describe
        sorting = Sorting(by_bin)
        runner.jobs = Jobs(settings, model, min_size, sorting, runner.ended, display.say, runner.wake)
        if line is not None:
            client = LineClient(line, settings.require_server_url())
            stack.callback(client.abandon)  # what is unanswered is pushed again by the next start
            stack.callback(client.wait_for_reports)  # before that
            runner.pusher = Pusher(client, deadline_ms / 1000, min_size, sorting, runner.ended, display.say)
        with _stopped_by_signals(runner):
            display.say(f"{opened.path}: put images, folders and ZIPs into {opened.incoming}")
            runner.run(once=once)
    print_message(runner.describe())
    if runner.num_unreadable:
        print_message(f"{runner.num_unreadable} stay in in/: they cannot be read", color="yellow")
    if runner.claims_left:
        print_message(f"{runner.claims_left} stay in working/; the next start goes on with them", color="yellow")


def _check(settings: "Settings", line: str | None, model: str | None) -> str:
    """The model's reference. Raises PigeonholeError where the line or the model cannot be used."""
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.jobs.pinned import pin_model
    from orchestrator.jobs.submit import JobClient

    if line is not None:
        return LinesView().get(line).settings.model
    assert model is not None
    pin_model(settings, model)
    JobClient(settings)
    return model


@contextlib.contextmanager
def _stopped_by_signals(runner: "Runner") -> Iterator[None]:
    """The first signal stops; the second ends the process as a kill does, also where its threads wait for a disk."""
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        runner.stop()

    before = [(number, signal.signal(number, stop)) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class _Display:
    """Shows how it goes: a line of JSON for each file, or a line that is redrawn on a terminal."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._terminal = sys.stderr.isatty()
        self._next = 0.0
        self.describe: Callable[[], str] = lambda: ""

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *_: object) -> None:
        redraw_line()

    def done(self, done: "Done") -> None:
        """A file has its result; called by one thread at a time."""
        if self._as_json:
            print_json_line(done.facts)
        elif done.failed:
            self.say(f"{done.facts['file']}: {done.facts.get('reason')}: {done.facts.get('error')}")
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + (_REDRAW_S if self._terminal else _LINE_EVERY_S)
            if self._terminal:
                redraw_line(self.describe())
            elif not self._as_json:
                print_message(self.describe())

    def say(self, text: str) -> None:
        """Tell the operator something."""
        redraw_line()
        print_message(text)
