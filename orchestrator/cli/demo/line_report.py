"""Runs the demo of a line and prints what happened: by bin and reason, and whether the accounts are balanced."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.cli.demo.line import DemoRun, Script, decisions_of, tell_line_story
from orchestrator.cli.output import duration, print_json, print_line, print_message, print_table
from orchestrator.contract.errors import ExitCode
from orchestrator.demo.accounts import bins_and_reasons
from orchestrator.lines.simulate.figures import Figures, make_figures
from orchestrator.lines.simulate.plot import draw_timeline

_SHOWN_WRONG = 5


def run_line_demo(output: Path, seed: int, script: Script | None = None, *, as_json: bool) -> None:
    """Run the demo in a folder that is empty, or of an earlier demo; exits with 1 where a card is not accounted for."""
    started = time.monotonic()
    script = script or Script()
    story = tell_line_story(output, seed, script)
    title = f"postcards: {script.load.per_second:g} a second; one of two workers killed, a model replaced"
    report_story(story, output / "timeline.png", title, time.monotonic() - started, as_json=as_json)


def report_story(story: DemoRun, picture: Path, title: str, elapsed_s: float, *, as_json: bool) -> None:
    """Draw the picture and print what happened; exits with 1 where a card is not accounted for."""
    figures = make_figures(story.samples, [], story.plan, elapsed_s=story.elapsed_s, cpu_s=story.cpu_s)
    draw_timeline(picture, title, story.samples, story.plan, figures, story.events)
    facts = _facts(story, figures, picture, elapsed_s)
    print_json(facts) if as_json else _print_story(story, figures, facts)
    if not story.accounts.balanced:
        print_message("the accounts are not balanced: " + "; ".join(story.accounts.wrong[:_SHOWN_WRONG]), color="red")
        sys.exit(ExitCode.FAILED)


def _facts(story: DemoRun, figures: Figures, picture: Path, elapsed_s: float) -> dict[str, Any]:
    accounts = story.accounts
    num_accepted, num_wrong = _accepted(story)
    return {
        "num_pushed": accounts.num_pushed,
        "num_decisions": accounts.num_decisions,
        "num_records": accounts.num_records,
        "num_counted": accounts.num_counted,
        "balanced": accounts.balanced,
        "wrong": accounts.wrong,
        "by_bin_and_reason": [
            {"bin": bin_, "reason": None if reason == "accept" else reason, "items": num}
            for bin_, reason, num in bins_and_reasons(decisions_of(story))
        ],
        "num_accepted": num_accepted,
        "num_accepted_wrong": num_wrong,
        "killed": story.killed,
        "recovered": story.recovered,
        "moved": story.moved,
        "by_model": _by_model(story),
        "figures": asdict(figures),
        "seconds": round(elapsed_s, 1),
        "picture": str(picture),
    }


def _accepted(story: DemoRun) -> tuple[int, int]:
    """How many cards were accepted, and how many of these were of another district, smudged ones included."""
    accepted = [answer for answer in decisions_of(story) if answer.decision == "accept" and answer.predicted]
    place = len(story.plan.prefix) + 1
    wrong = [answer for answer in accepted if answer.label != story.cards[int(answer.item[place:]) - 1].district]
    return len(accepted), len(wrong)


def _by_model(story: DemoRun) -> dict[str, int]:
    models = [answer.model for answer in decisions_of(story) if answer.model]
    return {model: models.count(model) for model in sorted(set(models))}


def _print_story(story: DemoRun, figures: Figures, facts: dict[str, Any]) -> None:
    accounts, times = story.accounts, figures.times
    print_line()
    print_table(("bin", "answer", "cards"), bins_and_reasons(decisions_of(story)))
    print_line()
    print_line(
        f"{accounts.num_pushed} cards pushed, {accounts.num_decisions} decisions, {accounts.num_records} records: "
        + ("every card is accounted for, once" if accounts.balanced else "NOT balanced"),
        bold=True,
    )
    rows = [
        ("accepted", f"{facts['num_accepted']} cards, {facts['num_accepted_wrong']} of them to a wrong district"),
        ("missed", f"{figures.num_missed} cards passed the gate without a prediction"),
        ("killed", f"{story.killed} in the middle; {story.recovered} of its cards went to the other one"),
        ("replaced", _replaced(story)),
        ("picture", str(facts["picture"])),
        ("took", duration(facts["seconds"])),
    ]
    if times is not None:
        text = f"p50 {times.p50:,.0f} ms, p99 {times.p99:,.0f} ms, worst {times.worst:,.0f} ms after the trigger"
        rows.insert(1, ("answers", text))
    for name, text in rows:
        print_line(f"  {name:10}{text}")
    _print_next()


def _replaced(story: DemoRun) -> str:
    models = _by_model(story)
    text = "answers by " + ", ".join(f"{model}: {num}" for model, num in models.items())
    return text if story.moved[1] in models else f"{text}; {story.moved[1]} was not loaded before the belt ended"


def _print_next() -> None:
    print_line()
    print_line("next, with a model and images of your own (docs/lines.md):")
    for command in (
        "pigeonhole up",
        "pigeonhole lines create post --model MODEL@champion --deadline 500ms --bin LABEL=1 --fallback F --review R",
        "pigeonhole push IMAGE --line post",
        "pigeonhole lines simulate post --images FOLDER --per-second 8 --plot post.png",
    ):
        print_line(f"  {command}")
