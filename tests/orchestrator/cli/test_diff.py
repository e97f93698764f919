"""`pigeonhole results diff`."""

import csv
import json
import os
from pathlib import Path

import pytest
from click.testing import Result

from modeling.names import from_cell
from orchestrator.contract.jobs.rows import Row
from tests.support.invoke import invoke
from tests.support.manifests import answered, failed, publish_rows

BEFORE = [
    answered("a.jpg", "cat", score=0.9, decision="accept"),
    answered("b.jpg", "cat", score=0.6, decision="review"),
    answered("c.jpg", "dog", score=0.8, decision="accept"),
    failed("d.jpg", "missing"),
    answered("e.jpg", "dog", score=0.5, decision="review"),
    answered("f.jpg", "dog", score=0.5, decision="review"),
]
AFTER = [
    BEFORE[0],
    answered("b.jpg", "dog", score=0.7, decision="accept"),
    answered("c.jpg", "dog", score=0.75, decision="accept"),
    answered("d.jpg", "cow", score=0.5, decision="review"),
    answered("e.jpg", "dog", score=0.3, decision="reject"),
    answered("g.jpg", "cow", score=0.3),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    return tmp_path


def publish(name: str, rows: list[Row], **changes: object) -> str:
    publish_rows(Path(name), rows, "/in", **changes)
    return name


def diff(*arguments: str) -> Result:
    return invoke("results", "diff", *arguments)


def test_equal_manifests_of_other_formats_exit_with_0():
    done = diff(publish("a.csv", BEFORE), publish("b.jsonl", BEFORE))

    assert done.exit_code == 0
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "A: a.csv: 6 images by digits@1",
        "B: b.jsonl: 6 images by digits@1",
        "6 rows equal, 0 with another answer, 0 with another score only, 0 only in A, 0 only in B",
    ]


def test_a_name_with_a_carriage_return_is_one_cell_of_the_csv():
    publish("a.csv", [answered("a\rb.jpg", "cat")])
    publish("b.csv", [answered("a\rb.jpg", "dog")])

    assert diff("a.csv", "b.csv", "-o", "changes.csv").exit_code == 1

    with open("changes.csv", newline="") as file:
        assert [(cells[0], len(cells)) for cells in csv.reader(file)] == [("path", 10), ("a\rb.jpg", 10)]


@pytest.mark.parametrize("names", [("a.csv", "b.csv"), ("a.json", "b.csv"), ("a.jsonl", "b.json")])
def test_differences_by_label_decision_and_row(names):
    done = diff(publish(names[0], BEFORE), publish(names[1], AFTER))

    assert done.exit_code == 1
    assert done.stderr.splitlines()[2:] == [
        "1 rows equal, 3 with another answer, 1 with another score only (by 0.050000 at most), 1 only in A, 1 only in B"
    ]
    assert done.stdout.splitlines() == [
        "LABEL IN A  LABEL IN B  IMAGES",
        "cat         dog         1",
        "(error)     cow         1",
        "",
        "DECISION IN A  DECISION IN B  IMAGES",
        "review         accept         1",
        "(none)         review         1",
        "review         reject         1",
        "",
        "PATH   CHANGE                      A                  B",
        "b.jpg  label decision score        cat 0.6000 review  dog 0.7000 accept",
        "d.jpg  label decision error score  missing            cow 0.5000 review",
        "e.jpg  decision score              dog 0.5000 review  dog 0.3000 reject",
        "f.jpg  removed                     dog 0.5000 review  -",
        "g.jpg  added                       -                  cow 0.3000",
    ]


def test_another_order_changes_nothing():
    straight = diff(publish("a.csv", BEFORE), publish("b.csv", AFTER))
    reversed_ = diff(publish("a.csv", BEFORE), publish("b.csv", AFTER[::-1]))

    assert (reversed_.exit_code, reversed_.stdout) == (1, straight.stdout)


def test_json_says_the_same(folder):
    done = diff(publish("a.csv", BEFORE), publish("b.csv", AFTER), "--json", "--limit", "1")

    said = json.loads(done.stdout)
    assert done.exit_code == 1
    assert {name: said[name] for name in said if name.startswith("num_")} == {
        "num_equal": 1, "num_changed": 3, "num_other_scores": 1, "num_removed": 1, "num_added": 1,
        "num_in_further_transitions": 0,
    }  # fmt: skip
    assert (said["equal"], said["same_model"], said["same_source"]) == (False, True, True)
    assert {"from": None, "to": "cow", "num_images": 1} in said["labels"]
    assert said["rows"] == [
        {
            "path": "b.jpg",
            "change": ["label", "decision", "score"],
            "before": {"label": "cat", "score": 0.6, "decision": "review", "error_code": None},
            "after": {"label": "dog", "score": 0.7, "decision": "accept", "error_code": None},
        }
    ]


def test_all_rows_that_differ_are_written_whatever_their_names(folder):
    odd = [os.fsdecode(b"caf\xe9.jpg"), "line\nend.jpg", "=1+1.jpg", "a,b;c.jpg"]
    before = [answered(path, "=cat") for path in odd]
    after = [answered(path, "dog") for path in odd[::-1]]
    publish("a.csv", before)
    publish("b.csv", after)

    assert diff("a.csv", "b.csv", "-o", "changes.csv", "--limit", "2").exit_code == 1
    assert diff("a.csv", "b.csv", "-o", "changes.jsonl").exit_code == 1

    with open("changes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [from_cell(row["path"]) for row in rows] == odd
    assert {(row["change"], row["label_before"], row["score_before"], row["label_after"]) for row in rows} == {
        ("label", "'=cat", "0.750000", "dog")
    }
    lines = [json.loads(line) for line in Path("changes.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [r"caf\xe9.jpg", *odd[1:]]


def test_other_models_and_sources_are_said():
    model = {"name": "birds", "number": 2, "ref": "birds@2", "digest": "e" * 64, "preprocessing_digest": "p" * 64}

    done = diff(publish("a.csv", BEFORE), publish("b.csv", BEFORE, model=model, root="/other"))

    assert done.exit_code == 0
    assert "the models differ: digits@1 and birds@2" in done.stderr
    assert "the sources differ: /in and /other; rows are matched by path" in done.stderr


def test_a_manifest_changed_by_hand_is_compared_with_a_warning():
    publish("a.csv", BEFORE)
    publish("b.csv", BEFORE)
    Path("b.csv").write_bytes(Path("b.csv").read_bytes().replace(b"dog", b"cow", 2))

    done = diff("a.csv", "b.csv")

    assert done.exit_code == 1
    assert "b.csv was changed since its job wrote it; `pigeonhole results verify` says how" in done.stderr
    assert "1 with another answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("a.csv", "gone.csv"), 4, "there is no manifest 'gone.csv'"),
        (("a.csv", "c261129-000000-aaaaaa"), 4, "c261129-000000-aaaaaa"),
        (("a.csv", "damaged.csv"), 1, "damaged.csv is not a manifest"),
        (("a.csv", "cut.json"), 1, "cut.json, line 10 is not a manifest row"),
        (("a.csv",), 2, "Missing argument 'B'"),
        (("a.csv", "a.csv", "-o", "changes.txt"), 2, "does not end in .csv or .jsonl"),
        (("a.csv", "b.csv", "-o", "b.csv", "--overwrite"), 2, "is the manifest itself, or a file beside it"),
        (("a.csv", "b.csv", "-o", "damaged.csv"), 2, "'damaged.csv' exists; name another"),
    ],
)
def test_bad_input_is_an_error_and_nothing_is_written(folder, arguments, code, said):
    for name in ("a.csv", "b.csv", "damaged.csv", "cut.json"):
        publish(name, BEFORE)
    Path("damaged.csv").write_text("a,b\n")
    Path("cut.json").write_bytes(Path("cut.json").read_bytes()[:-100])
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    done = diff(*arguments)

    assert done.exit_code == code
    assert said in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("command", [["diff", "a.csv", "b.csv"], ["duplicates", "a.csv"]])
def test_a_home_that_cannot_hold_what_is_kept_meanwhile_is_an_error_that_says_what_to_do(folder, monkeypatch, command):
    publish_rows(Path("a.csv"), BEFORE, str(folder))
    publish_rows(Path("b.csv"), AFTER, str(folder))
    (folder / "file").write_text("no folder")
    monkeypatch.setenv("PIGEONHOLE_HOME", str(folder / "file/home"))

    done = invoke("results", *command)

    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    assert "set PIGEONHOLE_HOME to another place" in done.stderr
