"""Labels from the files in which people keep them."""

import csv
import json
import os

import pytest

from modeling.errors import DataError
from modeling.exchange.labels import numbered, order_warning, read_labels

TREES = ("ash", "birch", "cedar")
TENCH, CRANE = ["n01440764", "tench"], ["n02012849", "crane"]


def read(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(folder / name)


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["ash", "birch", "cedar"], TREES),
        ({"2": "cedar", "0": "ash", "1": "birch"}, TREES),
        ({"cedar": 2, "ash": 0, "birch": 1}, TREES),
        ([1, 2], ("1", "2")),
        ({"0": TENCH, "1": CRANE}, ("tench", "crane")),
        ({"0": TENCH, "1": CRANE, "2": ["n03126707", "crane"]}, ("tench", "crane (n02012849)", "crane (n03126707)")),
        ({"architecture": "resnet18", "num_classes": 3, "label_names": list(TREES)}, TREES),
        ({"architecture": "x", "pretrained_cfg": {"label_names": list(TREES)}}, TREES),
        (
            {"label_names": ["n01440764", "n02012849"], "label_descriptions": {"n01440764": "tench, Tinca tinca"}},
            ("tench, Tinca tinca", "n02012849"),
        ),
        ({"label_names": list(TREES), "label_descriptions": {"ash": "a tree"}}, TREES),
        (
            {"model_type": "vit", "id2label": {"0": "ash", "1": "birch", "2": "cedar"}, "label2id": {"ash": 0}},
            TREES,
        ),
        ([" ash ", "birch", "cedar"], TREES),
        (["e\u0301"], ("é",)),
        (["cat:0.999;dog", "="], ("cat:0.999;dog", "=")),
    ],
)
def test_json_holds_labels_in_many_ways(tmp_path, value, labels):
    assert read(tmp_path, "labels.json", json.dumps(value)) == labels


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("labels.txt", "ash\nbirch\ncedar\n", TREES),
        ("labels.txt", "\ufeffash\r\nbirch\r\ncedar", TREES),
        ("labels.txt", "ash\nbirch\ncedar\n".encode("utf-16"), TREES),
        ("labels.txt", "0 ash\n2: cedar\n1\tbirch\n", TREES),
        ("labels.txt", "0,ash\n1,birch\n2,cedar\n", TREES),
        ("synsets.txt", "n01440764 tench, fish\nn02012849 crane\n", ("n01440764 tench, fish", "n02012849 crane")),
        ("labels.txt", "1 euro\n2 euro\n", ("1 euro", "2 euro")),
        ("labels", '["ash", "birch", "cedar"]', TREES),
        ("labels.csv", "0,ash\n1,birch\n2,cedar\n", TREES),
        ("labels.csv", "index,label\n2,cedar\n0,ash\n1,birch\n", TREES),
        ("labels.csv", "Label;ID\nash;0\nbirch;1\ncedar;2\n", TREES),
        ("labels.tsv", "id\twordnet\tname\n0\tn1\tash\n1\tn2\tbirch\n2\tn3\tcedar\n", TREES),
        ("labels.csv", "label\nash\nbirch\ncedar\n", TREES),
        ("labels.csv", '0,"ash, the tree"\n1,birch\n', ("ash, the tree", "birch")),
    ],
)  # fmt: skip
def test_text_and_tables_hold_labels_too(tmp_path, name, text, labels):
    assert read(tmp_path, name, text) == labels


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("l.json", '{"0": "a", "2": "b"}', "labels must be numbered 0 to 1 without a gap, not 0, 2"),
        (
            "l.json",
            '["a", "b", "a"]',
            r"labels must differ, but a stands there twice \('a' at 0 and 2, counted from 0\)",
        ),
        ("l.json", "[]", "names no labels; labels must be a JSON list of names"),
        ("l.json", "{}", "labels must be a JSON list of names"),
        ("l.json", '["a", true]', "True is not a label"),
        ("l.json", "[1.5, 2]", "1.5 is not a label"),
        ("l.json", "[null]", "None is not a label"),
        ("l.json", '"cat"', "labels must be a JSON list of names"),
        (
            "l.json",
            '{"architecture": "resnet18", "num_classes": 2}',
            "of a config.json, label_names or labels or id2label",
        ),
        ("l.json", "[", r"not JSON .*; expected a JSON list of names"),
        ("l.json", '["a\\u202e", "b"]', r"holds U\+202E, which cannot be seen; rename it"),
        ("l.json", '["", "b"]', "'' is not a label"),
        ("l.txt", "a\n\nb\n", "line 2 is empty; give one label on each line"),
        ("l.txt", "", "names no labels"),
        ("l.txt", b"\xffcat", "not text in UTF-8"),
        ("l.csv", "1,ash\n2,birch\n", "no column numbers the labels from 0 on without a gap"),
        ("l.csv", "0,a,b\n1,c,d\n", "which of 3 columns names the labels"),
        ("l.json", '{"labels": {"labels": {"labels": ["a"]}}}', "labels must be"),
        ("l.csv", "0,a,b\n1,c\n", "its lines have different numbers of columns"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, name, content, told):
    with pytest.raises(DataError, match=told) as error:
        read(tmp_path, name, content)
    assert "\n" not in str(error.value)


def test_a_pipe_of_labels_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "labels.json")

    with pytest.raises(DataError, match="is a pipe, not a regular file; write its content to a file"):
        read_labels(tmp_path / "labels.json")


def test_a_cell_that_is_longer_than_the_csv_module_reads_is_one_line(tmp_path):
    before = csv.field_size_limit(1000)  # of the whole process; others may have raised it
    try:
        with pytest.raises(DataError, match=r"not a table \(field larger than field limit \(1000\)\); give a number"):
            read(tmp_path, "labels.csv", f"0,{'a' * 2000}\n")
    finally:
        csv.field_size_limit(before)


def test_forty_thousand_labels_are_read(tmp_path):
    labels = tuple(f"label {number:05}" for number in range(40_000))

    assert read(tmp_path, "labels.json", json.dumps(labels)) == labels
    assert numbered(labels).endswith("9 label 00009, ..., 39999 label 39999")


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        (("0", "1", "10", "2"), "output 2 is '10', not '2'"),
        (("-1", "0", "10", "9"), "output 2 is '10', not '9'"),
        (("0", "1", "2", "10"), None),
        (("0", "1", "2"), None),
        (("10", "2", "1"), None),
        (("1", "10", "2", "cat"), None),
    ],
)
def test_numbers_in_the_order_of_text_are_warned_of(labels, warned):
    told = order_warning(labels)

    assert (told is None) if warned is None else (warned in told)


def test_labels_are_shown_with_their_numbers():
    assert numbered(TREES) == "0 ash, 1 birch, 2 cedar"
    assert numbered([str(number) for number in range(11)]).endswith("9 9, 10 10")
