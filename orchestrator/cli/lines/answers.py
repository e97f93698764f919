"""`pigeonhole lines answer` and `tail`."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli.lines.options import LineName
from orchestrator.cli.output import json_option, print_json, print_json_line, print_line, print_message
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.lines.archive import AnswerArchive

if TYPE_CHECKING:
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.contract.lines.answers import Answer
    from orchestrator.contract.lines.store import LineStore

SERVER_AGAIN_S = 0.5


@click.command("answer")
@click.argument("line", type=LineName())
@click.argument("item")
@click.option("--pass", "pass_", type=int, default=1, show_default=True, help="Pass of the item: how often it came by.")
@json_option
def look_up_answer(line: str, item: str, pass_: int, as_json: bool) -> None:
    """Look up the answer of ITEM on LINE: its bin, the reason, and the prediction. Exits with 4 if there is none.

    Answers are kept as long as the line's --keep says, also where the server was emptied. `ms` is the time from the
    admission to the answer.

    \b
    Examples:
      pigeonhole lines answer birds 0001.jpg
      pigeonhole lines answer birds 0001.jpg --pass 2 --json
    """
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.lines.facts import answer_facts

    answer = _find(LinesView(), line, item, pass_)
    if answer is None:
        raise NotFoundError(f"line {line!r} has no answer for item {item!r}, pass {pass_}: not pushed, or forgotten")
    facts = answer_facts(answer)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            print_line(f"{name:14} {_text(value)}")


@click.command("tail")
@click.argument("line", type=LineName())
@click.option("--last", type=click.IntRange(0, 10_000), default=10, show_default=True, help="Answers to begin with.")
@click.option("--no-follow", is_flag=True, help="Show the last answers only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tail(line: str, last: int, no_follow: bool, as_json: bool) -> None:
    """Show the last answers of LINE, then each as it comes, until Ctrl-C.

    \b
    Examples:
      pigeonhole lines tail birds
      pigeonhole lines tail birds --json --last 0
    """
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.lines.facts import answer_facts

    view = LinesView()
    for answers in _follow(line, view.store(view.get(line)), last):
        for answer in answers:
            print_json_line(answer_facts(answer)) if as_json else print_line(_row(answer))
        if no_follow:
            return


def _follow(line: str, store: "LineStore", last: int) -> Iterator[list["Answer"]]:
    """The answers as they come; a server that goes away is waited for, and that is said."""
    from orchestrator.contract.server import SERVER_ERRORS
    from orchestrator.lines.follow import AnswerFollower, wait_for_more

    follower = AnswerFollower(store, last)
    yield follower.read()
    away = False
    while True:
        try:
            with doing(f"waiting for answers of line {line}"):
                wait_for_more(store)
            answers = follower.read()
        except SERVER_ERRORS as err:
            if not away:
                print_message(f"the server of line {line} does not answer, waiting for it: {err}")
            away = True
            time.sleep(SERVER_AGAIN_S)
            continue
        if away:
            print_message(f"the server of line {line} answers again")
        away = False
        yield answers


def _find(view: "LinesView", line: str, item: str, pass_: int) -> "Answer | None":
    """What is late is answered first; without a server, only the files of the home are read."""
    from orchestrator.contract.lines.answers import decode_record, request_key
    from orchestrator.contract.lines.lookup import look_up
    from orchestrator.lines.request import check_item, check_pass

    try:
        key = request_key(check_item(item), check_pass(pass_))
    except ValueError as err:
        raise UsageError(str(err)) from err
    found = view.get(line)
    archive = AnswerArchive(view.answers_folder(line))
    if view.trouble is None:
        return look_up(view.store(found), archive, key)
    record = archive.find(key)
    if record is None:
        raise view.trouble
    return decode_record(record)


def _row(answer: "Answer") -> str:
    from orchestrator.lines.facts import time_text

    at = time_text(answer.answered_ms) or ""
    score = "-" if answer.score is None else f"{answer.score:.3f}"
    words = (answer.reason or "accepted") + (f" ({answer.cause})" if answer.cause else "")
    return (
        f"{at[11:23]}  {answer.item} pass {answer.pass_}  bin {answer.bin}  {words}  {answer.label or '-'} {score}  "
        f"{answer.answered_ms - answer.admitted_ms if answer.admitted_ms else 0} ms"
    )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:.4g}" for name, number in value.items())
    if isinstance(value, tuple):
        return ", ".join(f"{label} {score:.4f}" for label, score in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
