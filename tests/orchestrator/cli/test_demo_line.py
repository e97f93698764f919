"""What the demo of a line prints of a story that has ended."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.demo.line import DemoRun
from orchestrator.cli.demo.line_report import report_story
from orchestrator.contract.lines.answers import Answer
from orchestrator.demo.accounts import account
from orchestrator.demo.cards import Card
from orchestrator.lines.simulate.belt import BeltPlan, Sample

ANSWERS = [
    Answer("card-1", 1, "bin-1", label="harbour", score=0.9, decision="accept", model="districts@1"),
    Answer("card-2", 1, "review", "low_confidence", label="west", score=0.4, decision="review", model="districts@2"),
    Answer("card-3", 1, "bin-2", label="north", score=0.9, decision="accept", model="districts@2"),
]
CARDS = [Card("harbour", False, b""), Card("north", True, b""), Card("east", False, b"")]


def make_story(answers: list[Answer]) -> DemoRun:
    items = [f"card-{number}" for number in (1, 2, 3)]
    return DemoRun(
        cards=CARDS,
        plan=BeltPlan("card", 1000, 1000),
        samples=[Sample(answer.item, number, number, number + 0.02, answer) for number, answer in enumerate(answers)],
        elapsed_s=3.0,
        cpu_s=0.1,
        accounts=account(items, answers, {answer.item: answer for answer in answers}, len(answers)),
        recovered=1,
        killed="worker-cpu-2",
        moved=("districts@1", "districts@2"),
        events=((0.5, "model replaced"), (1.5, "worker killed")),
    )


def test_every_bin_and_reason_is_printed_and_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report_story(make_story(ANSWERS), tmp_path / "line.png", "cards", 42.0, as_json=False)

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:5] == ["BIN ANSWER CARDS", "bin-1 accept 1", "bin-2 accept 1", "review low_confidence 1"]
    assert "3 cards pushed, 3 decisions, 3 records: every card is accounted for, once" in lines
    assert "accepted 2 cards, 1 of them to a wrong district" in lines
    assert "killed worker-cpu-2 in the middle; 1 of its cards went to the other one" in lines
    assert "replaced answers by districts@1: 1, districts@2: 2" in lines
    assert (tmp_path / "line.png").exists()


def test_a_version_that_was_loaded_too_late_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    early = [replace(answer, model="districts@1") for answer in ANSWERS]

    report_story(make_story(early), tmp_path / "line.png", "cards", 42.0, as_json=False)

    assert "districts@1: 3; districts@2 was not loaded before the belt ended" in capsys.readouterr().out


def test_a_card_without_a_record_ends_with_1_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        report_story(make_story(ANSWERS[:2]), tmp_path / "line.png", "cards", 42.0, as_json=False)

    assert end.value.code == 1
    printed = capsys.readouterr()
    assert "NOT balanced" in printed.out
    assert "card-3 has 0 decisions; card-3 has no record" in printed.err
