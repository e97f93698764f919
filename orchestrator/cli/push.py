"""`pigeonhole push`."""

import contextlib
import logging
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from orchestrator.cli.lines.options import DURATION, LineName
from orchestrator.cli.output import json_option, print_json_line, print_message, print_table
from orchestrator.contract.errors import ExitCode, PigeonholeError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from orchestrator.contract.lines.answers import Answer
    from orchestrator.lines.client import LineClient

MOST_IN_FLIGHT = 128 << 20  # bytes; half of what a client holds at most


@dataclass(frozen=True, slots=True)
class _Push:
    """What is pushed: the same for all images but for image and item."""

    images: tuple[tuple[str | bytes, str], ...]
    pass_: int
    deadline: float | None
    by_path: bool


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--line", required=True, type=LineName(), help="Line that answers.")
@click.option("--item", help="Name of the item; default: the path as given. For one image only.")
@click.option("--pass", "pass_", type=int, default=1, show_default=True, help="How often the item has come by.")
@click.option("--deadline", "deadline_ms", type=DURATION, help="Time to the answer; default: the line's deadline.")
@click.option("--fallback", metavar="BIN", help="Bin where no server ever answers; needs --deadline, too.")
@click.option("--by-path", is_flag=True, help="Send the paths only; they must lie below a root of the line.")
@json_option
def push(
    images: tuple[str, ...], line: str, item: str | None, pass_: int, deadline_ms: int | None, fallback: str | None,
    by_path: bool, as_json: bool,
) -> None:  # fmt: skip
    """Push IMAGEs to a line at once, and print the bin of each, in the order given.

    `-` is the bytes of one image from standard input. An item that is pushed again with the same pass and bytes gets
    the answer that it has. An image that cannot be read gets the fallback bin.

    With --json exactly one line per image: item, pass, bin, reason (null: accepted), label, score, decision, model, and
    ms from the call to the answer. Exits with 0 if every image has a bin, the fallback bin included; with 1 if an item
    was pushed before with other bytes (`conflict`).

    \b
    Examples:
      pigeonhole push 0001.jpg 0002.jpg --line birds
      pigeonhole push frame.jpg --line birds --item 4711 --pass 2 --json
      camera | pigeonhole push - --line birds --item 4712 --deadline 300ms
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.lines.client import LineClient

    pushed = _checked(images, item, pass_, deadline_ms, by_path=by_path)
    if fallback is not None and deadline_ms is None:
        raise UsageError("--fallback needs --deadline: without a server nothing else says when to decide")
    url = get_settings().require_server_url()
    logging.getLogger("orchestrator.lines").setLevel(logging.ERROR)  # of its warnings this command says what counts
    answers = []
    with _closing(LineClient(line, url, fallback=fallback)) as client:
        futures = _submit(client, pushed)
        if pushed.by_path:  # one outside of the roots is an error, and then nothing is printed
            for future in futures:
                _result(future)
        for future in futures:
            answers.append(_result(future))
            if as_json:
                print_json_line(answers[-1].to_json())
    if not as_json:
        _print(answers)
    _tell(answers)
    sys.exit(ExitCode.FAILED if any(answer.reason == "conflict" for answer in answers) else ExitCode.OK)


@contextlib.contextmanager
def _closing(client: "LineClient") -> Iterator["LineClient"]:
    """Close it at the end, which waits for all answers; an interrupt does not wait."""
    try:
        yield client
    except PigeonholeError:
        client.close()
        raise
    client.close()


def _checked(images: tuple[str, ...], item: str | None, pass_: int, deadline_ms: int | None, *, by_path: bool) -> _Push:
    """What to push. Raises UsageError before anything is pushed."""
    from orchestrator.lines.request import check_deadline, check_item, check_pass

    if item is not None and len(images) > 1:
        raise UsageError(f"--item names one image, not {len(images)}; push each by itself, or leave --item out")
    if "-" in images and (item is None or by_path):
        raise UsageError("`-` is one image from standard input: give its --item" + (", no --by-path" * by_path))
    items = images if item is None else (item,)
    doubled = [name for name, times in Counter(items).items() if times > 1]
    if doubled:
        raise UsageError(f"{doubled[0]!r} is given {Counter(items)[doubled[0]]} times; an item has one answer a pass")
    try:
        check_pass(pass_)
        for name in items:
            check_item(name)
        deadline = check_deadline(None if deadline_ms is None else deadline_ms / 1000)
    except ValueError as err:
        raise UsageError(str(err)) from err
    read = tuple(_standard_input() if image == "-" else image for image in images)
    return _Push(tuple(zip(read, items, strict=True)), pass_, deadline, by_path)


def _standard_input() -> bytes:
    from orchestrator.lines.request import LARGEST_FILE_BYTES

    data = sys.stdin.buffer.read(LARGEST_FILE_BYTES + 1)
    if len(data) > LARGEST_FILE_BYTES:
        raise UsageError(f"standard input holds more than {LARGEST_FILE_BYTES} bytes: that is not an image for a line")
    return data


def _submit(client: "LineClient", pushed: _Push) -> "list[Future[Answer]]":
    """Push all at once, as long as the client may hold their bytes; the others as soon as earlier ones are answered."""
    from concurrent.futures import wait

    futures: list[Future[Answer]] = []
    held: deque[tuple[Future[Answer], int]] = deque()
    num_bytes = 0
    try:
        for image, item in pushed.images:
            size = 0 if pushed.by_path else _size(image)
            while held and num_bytes + size > MOST_IN_FLIGHT:
                oldest, its_size = held.popleft()
                wait([oldest])
                num_bytes -= its_size
            futures.append(client.submit(image, item, pushed.pass_, deadline=pushed.deadline, by_path=pushed.by_path))
            held.append((futures[-1], size))
            num_bytes += size
    except ValueError as err:
        raise UsageError(str(err)) from err
    return futures


def _size(image: str | bytes) -> int:
    """Bytes of an image; 0 for a file that the client will find unreadable."""
    if isinstance(image, bytes):
        return len(image)
    try:
        return os.path.getsize(image)  # noqa: PTH202 pathlib is slow to import
    except OSError:
        return 0


def _result(future: "Future[Answer]") -> "Answer":
    try:
        return future.result()
    except ValueError as err:  # what the line's settings refuse, such as a path outside of its roots
        raise UsageError(str(err)) from err


def _print(answers: list["Answer"]) -> None:
    columns = ("item", "pass", "bin", "reason", "label", "score", "decision", "model", "ms")
    print_table(columns, [_row(answer) for answer in answers])


def _row(answer: "Answer") -> tuple[object, ...]:
    facts = answer.to_json()
    score = "-" if answer.score is None else f"{answer.score:.4f}"
    shown = {**facts, "score": score, "ms": f"{answer.ms:.0f}"}
    return tuple("-" if value is None else value for value in shown.values())


def _tell(answers: list["Answer"]) -> None:
    """Say on standard error why images could not be read, and how many were decided without a server."""
    for answer in answers:
        if answer.reason == "unreadable" and answer.error:
            named = answer.error.startswith(f"{answer.item}: ")  # a file that is its own item
            print_message(answer.error if named else f"{answer.item}: {answer.error}", color="yellow")
    if alone := sum(answer.reason == "no_server" for answer in answers):
        print_message(f"{alone} of {len(answers)} images were decided here: the server did not answer", color="yellow")
