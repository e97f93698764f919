import csv
import json
import os
import unicodedata
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modeling.data.forms.open import open_dataset
from modeling.inference.prediction import Prediction
from modeling.names import path_to_text
from orchestrator.contract.errors import IntegrityError, UsageError
from orchestrator.contract.jobs.rows import COLUMNS, FORMATS, Row, format_of

FACTS = {"version": 1, "source": 'scans "2024"\n, café', "num_images": 3}
ODD_NAMES = [
    b"with space.jpg", b"line\nend.jpg", b"return\rend.jpg", b"\r\n.jpg", b'quo"te.jpg', b"com,ma.jpg", b"semi;colon",
    "🐦.jpg".encode(), b"=1+1.jpg", b"+1.jpg", b"-1.jpg", b"@here.jpg", b"\tx.jpg", b"'x.jpg", b"''=x.jpg", b"\rx.jpg",
    b"\xff\xfe.jpg", b"caf\xe9.jpg", b"\\xe9.jpg", b"\\x5cxe9.jpg", "\u2028 \u0085.jpg".encode(), b"\x1a\x0b\x0c.jpg",
    b" leading", b"trailing ", b"sub/folder/a.jpg", b"  ]", b'  "predictions": [', b"\x00.jpg",
    "\ufeffbom.jpg".encode(),
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(ODD_NAMES), st.binary(min_size=1, max_size=20)).map(os.fsdecode)
ODD_LABELS = [
    "cat", "a;b", "a:b", "x:0.5", ";", ":", "=sum", "'", "", "a:0.500000", "new\nline", "c\rr", "é", "cat:0.999999;dog",
    ":0.123456;", "a:0.123456;:0.123456;", "7", "-1", "+1", "'=1", '"=1', "a;=1+1", "a\n=1", "\\x41", "\\x3b",
    "\x1b[31m", "0.500000", ";0.500000", "a:٠.١٢٣٤٥٦;b", "\x9b", "\u202e", "'-1", "@", "\t",
]  # fmt: skip
LABELS = st.one_of(
    st.sampled_from(ODD_LABELS),
    st.lists(st.sampled_from([":", ";", "0.123456", "=", "'", '"', "\\", "x3b", "a", "\n"])).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)
SCORES = st.integers(0, 1_000_000).map(lambda value: value / 1_000_000)
ERRORS = st.one_of(  # control characters are written by their numbers
    st.sampled_from(["=1+1", "it's\nbroken", "a, b"]), st.text(st.characters(exclude_categories=["C"]))
)
DECISIONS = st.sampled_from([None, "accept", "review", "reject"])


@st.composite
def predictions(draw):
    if draw(st.booleans()):
        code = draw(st.sampled_from(["missing", "truncated"]))
        return Prediction(error_code=code, error=draw(ERRORS), decision=draw(DECISIONS))
    labels = draw(st.lists(LABELS, min_size=1, max_size=3))
    return Prediction(tuple(labels), tuple(draw(SCORES) for _ in labels), decision=draw(DECISIONS))


ROWS = st.builds(Row, NAMES, predictions())
PARTS = st.lists(st.lists(ROWS, min_size=1, max_size=4), max_size=4)


def join(row_format, parts):
    encoder = FORMATS[row_format]
    return encoder.header(FACTS) + encoder.separator.join(map(encoder.encode, parts)) + encoder.footer()


@pytest.mark.parametrize("row_format", FORMATS)
@given(parts=PARTS)
def test_parts_joined_make_a_manifest_that_reads_back_as_the_same_rows(row_format, parts, tmp_path):
    path = tmp_path / "manifest"
    path.write_bytes(join(row_format, parts))

    rows = list(FORMATS[row_format].read(path))

    assert rows == [row for part in parts for row in part]


@pytest.mark.parametrize("row_format", FORMATS)
def test_every_odd_file_name_survives_in_one_manifest(row_format, tmp_path):
    rows = [Row(os.fsdecode(name), Prediction(("a;b:c",), (0.5,))) for name in ODD_NAMES]
    path = tmp_path / "manifest"
    path.write_bytes(join(row_format, [rows[:3], rows[3:]]))

    names = [os.fsencode(row.path) for row in FORMATS[row_format].read(path)]

    assert names == ODD_NAMES


@given(parts=PARTS)
def test_a_csv_manifest_is_utf8_of_eight_columns_without_formulas(parts, tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(join("csv", parts))

    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)

    assert tuple(header) == COLUMNS
    assert len(lines) == sum(map(len, parts))
    assert [line for line in lines if len(line) != len(COLUMNS)] == []
    assert [cell for line in lines for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


@given(parts=PARTS)
def test_a_csv_manifest_holds_no_formula_for_a_program_that_parts_cells_at_semicolons_nor_anything_for_a_terminal(
    parts,
):
    text = join("csv", parts).decode()

    cells = [cell for line in csv.reader(text.splitlines(keepends=True), delimiter=";") for cell in line]
    assert [
        cell for cell in cells if cell.startswith(("=", "+", "-", "@")) and not cell.partition(":")[0][1:].isdecimal()
    ] == []
    assert [char for char in text if unicodedata.category(char) == "Cc" and char not in "\t\r\n"] == []


@pytest.mark.parametrize("label", [*ODD_LABELS, "cat", "0:1", "tabby, tabby cat", "Gänse"])
def test_every_legal_label_comes_back_from_every_format_in_any_place(label, tmp_path):
    rows = [Row("a.jpg", Prediction(tuple(labels), (0.5, 0.25, 0.25))) for labels in permutations([label, "x", "-1"])]

    for row_format in FORMATS:
        path = tmp_path / f"out.{row_format}"
        path.write_bytes(join(row_format, [rows]))
        assert list(FORMATS[row_format].read(path)) == rows


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_manifest_is_training_data_of_the_very_labels_that_its_model_gave(row_format, tmp_path):
    labels = ["cat:0.999999;dog", "-1", "=1+1", "a;=b", "\\x41", "x:y"]
    rows = [Row(f"{index}.png", Prediction((label, "z"), (0.5, 0.25))) for index, label in enumerate(labels)]
    for row in rows:
        (tmp_path / row.path).touch()
    path = tmp_path / f"out.{row_format}"
    path.write_bytes(join(row_format, [rows]))

    dataset = open_dataset(path)

    assert [dataset.labels[target] for target in dataset.targets_N] == labels


@pytest.mark.parametrize(
    "label", ["cat", "a;b", "a:b", "7", "-1", "0:1", "a:0.500000", "tabby, tabby cat", "Gänse", "a\\b"]
)
def test_an_ordinary_label_is_written_as_it_is(label):
    row = Row("a.jpg", Prediction(("x", label), (0.75, 0.25)))

    [cells] = csv.reader([FORMATS["csv"].encode([row]).decode()])

    assert cells[5] == f"x:0.750000;{label}:0.250000"


@given(parts=PARTS)
def test_a_json_manifest_is_one_document_with_facts_and_predictions(parts):
    document = json.loads(join("json", parts))

    rows = [row for part in parts for row in part]
    assert {key: document[key] for key in FACTS} == FACTS
    assert [prediction["path"] for prediction in document["predictions"]] == [path_to_text(row.path) for row in rows]
    assert {tuple(prediction) for prediction in document["predictions"]} <= {COLUMNS}


@given(rows=st.lists(ROWS, max_size=6))
def test_a_jsonl_manifest_is_one_object_a_line(rows):
    lines = FORMATS["jsonl"].encode(rows).decode("utf-8").split("\n")

    assert lines.pop() == ""
    assert [json.loads(line)["path"] for line in lines] == [path_to_text(row.path) for row in rows]


def test_the_columns_hold_the_result_of_an_image():
    ok = Row("a.jpg", Prediction(("cat", "dog"), (0.75, 0.25), decision="accept"))
    failed = Row("b.jpg", Prediction(error_code="empty", error="the file is empty (0 bytes)", decision="reject"))

    text = FORMATS["csv"].encode([ok, failed]).decode()
    records = [json.loads(line) for line in FORMATS["jsonl"].encode([ok, failed]).splitlines()]

    assert text == (
        "a.jpg,ok,accept,cat,0.750000,cat:0.750000;dog:0.250000,,\n"
        "b.jpg,error,reject,,,,empty,the file is empty (0 bytes)\n"
    )
    assert records == [
        {
            "path": "a.jpg", "status": "ok", "decision": "accept", "label": "cat", "score": 0.75,
            "top_k": [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}],
            "error_code": None, "error": None,
        },
        {
            "path": "b.jpg", "status": "error", "decision": "reject", "label": None, "score": None, "top_k": [],
            "error_code": "empty", "error": "the file is empty (0 bytes)",
        },
    ]  # fmt: skip


def test_without_a_calibration_the_decision_is_empty():
    row = Row("a.jpg", Prediction(("cat",), (0.75,)))

    assert FORMATS["csv"].encode([row]) == b"a.jpg,ok,,cat,0.750000,cat:0.750000,,\n"
    assert json.loads(FORMATS["jsonl"].encode([row]))["decision"] is None


@pytest.mark.parametrize("row_format", FORMATS)
def test_an_unknown_decision_is_damage(row_format, tmp_path):
    whole = join(row_format, [[Row("a.jpg", Prediction(("cat",), (0.5,), decision="review"))]])
    path = tmp_path / "manifest"
    path.write_bytes(whole.replace(b"review", b"revise"))

    with pytest.raises(IntegrityError, match="'revise' is not a decision"):
        list(FORMATS[row_format].read(path))


CHANGED = {
    "the label": (
        b'"label": "cat", "score": 0.75, "top_k"',
        b'"label": "dog", "score": 0.75, "top_k"',
        b",cat,",
        b",dog,",
    ),
    "the score": (b'"score": 0.75, "top_k"', b'"score": 0.57, "top_k"', b",0.750000,", b",0.570000,"),
    "an empty score": (b'"score": 0.75, "top_k"', b'"score": null, "top_k"', b",0.750000,", b",,"),
    "a label of an error": (b'"label": null', b'"label": "dog"', b"error,,,", b"error,,dog,"),
}


@pytest.mark.parametrize("row_format", FORMATS)
@pytest.mark.parametrize("what", CHANGED)
def test_a_cell_that_was_changed_by_hand_is_damage(row_format, what, tmp_path):
    rows = [Row("a.jpg", Prediction(("cat", "dog"), (0.75, 0.25))), Row("b.jpg", Prediction(error_code="missing"))]
    whole, changes = join(row_format, [rows]), CHANGED[what]
    before, after = changes[2:] if row_format == "csv" else changes[:2]
    assert whole.count(before) == 1
    path = tmp_path / "manifest"
    path.write_bytes(whole.replace(before, after))

    line = whole[: whole.index(before)].count(b"\n") + 1
    told = rf"manifest, line {line} is not a manifest row: its label and score are \(.*\), the first of its top_k \("
    with pytest.raises(IntegrityError, match=told):
        list(FORMATS[row_format].read(path))


def test_a_score_that_a_spreadsheet_has_shortened_is_the_same(tmp_path):
    row = Row("a.jpg", Prediction(("cat", "dog"), (0.75, 0.25)))
    path = tmp_path / "manifest.csv"
    path.write_bytes(join("csv", [[row]]).replace(b",0.750000,", b",0.75,"))

    assert list(FORMATS["csv"].read(path)) == [row]


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_row_with_ten_thousand_labels_reads_back(row_format, tmp_path):
    labels = tuple(f"a rather long label, number {number}" for number in range(10_000))
    row = Row("a.jpg", Prediction(labels, (0.0001,) * 10_000))
    path = tmp_path / "manifest"
    path.write_bytes(join(row_format, [[row]]))

    assert list(FORMATS[row_format].read(path)) == [row]


@pytest.mark.parametrize("row_format", FORMATS)
@pytest.mark.parametrize("damage", [b"\xff", b"\x00garbage\n"])
def test_a_damaged_manifest_raises_an_integrity_error(row_format, damage, tmp_path):
    rows = [Row(f"{number}.jpg", Prediction(("cat",), (0.5,))) for number in range(3)]
    whole = join(row_format, [rows])
    middle = whole.index(b"1.jpg") - 1
    path = tmp_path / "manifest"
    path.write_bytes(whole[:middle] + damage + whole[middle + 20 :])

    with pytest.raises(IntegrityError, match="manifest"):
        list(FORMATS[row_format].read(path))


def test_a_truncated_json_manifest_raises_an_integrity_error(tmp_path):
    whole = join("json", [[Row("a.jpg", Prediction(("cat",), (0.5,)))]])
    path = tmp_path / "manifest.json"
    path.write_bytes(whole.removesuffix(FORMATS["json"].footer()) + b"\n")

    with pytest.raises(IntegrityError, match="ends in the middle"):
        list(FORMATS["json"].read(path))


@pytest.mark.parametrize(("row_format", "text"), [("csv", "a,b\n1,2\n"), ("json", "{}\n"), ("jsonl", "{}\n")])
def test_another_file_is_no_manifest(row_format, text, tmp_path):
    path = tmp_path / "other"
    path.write_text(text)

    with pytest.raises(IntegrityError, match="is not a manifest"):
        list(FORMATS[row_format].read(path))


@pytest.mark.parametrize(("name", "expected"), [("a.csv", "csv"), ("a.b.JSON", "json"), ("x.jsonl", "jsonl")])
def test_the_format_follows_the_name(name, expected, tmp_path):
    assert format_of(tmp_path / name) == expected


def test_a_name_without_a_known_suffix_needs_a_format(tmp_path):
    with pytest.raises(UsageError, match=r"'out\.txt' does not end in one of \.csv, \.json, \.jsonl"):
        format_of(tmp_path / "out.txt")


@given(row=ROWS)
@example(row=Row("a\rb", Prediction(("x",), (1.0,))))
def test_the_same_rows_give_the_same_bytes_however_they_are_cut_into_parts(row):
    rows = [row, Row("b.jpg", Prediction(("cat",), (0.5,))), row]

    for row_format in FORMATS:
        assert (
            join(row_format, [rows]) == join(row_format, [rows[:1], rows[1:]]) == join(row_format, [[r] for r in rows])
        )
