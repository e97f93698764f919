"""The reader of lists: headings, separators, encodings, JSON, and what is refused with its line."""

import json
from pathlib import Path

import pytest

from modeling.data.lists.reader import open_list_file
from modeling.errors import DataError

ROWS = [{"path": "a.png", "label": "cat"}, {"path": "sub/é.png", "label": "dog"}]
CSV = "path,label\na.png,cat\nsub/é.png,dog\n"


def rows_of(path: Path, data: bytes | str) -> list[dict[str, str]]:
    path.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
    return [fields for _, fields in open_list_file(path).rows]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.csv", CSV),
        ("x.CSV", CSV.replace("\n", "\r\n")),
        ("x.csv", CSV.replace("\n", "\r")),
        ("x.csv", CSV.replace(",", ";")),
        ("x.csv", CSV.replace(",", "\t")),
        ("x.csv", CSV.replace(",", "|")),
        ("x.tsv", CSV.replace(",", "\t")),
        ("x.tsv", CSV),
        ("x.csv", "Path, Label\na.png, cat\nsub/é.png, dog\n"),
        ("x.csv", '"path", "label"\n"a.png", "cat"\n"sub/é.png", "dog"\n'),
        ("x.csv", CSV.replace("path,label", " FILE NAME ,\tClass")),
        ("x.csv", CSV.replace("path,label", "image-path,LABEL")),
        ("x.csv", CSV.replace("path", "#path")),
        ("x.csv", "\ufeff" + CSV),
        ("x.csv", "\ufeffsep=;\r\n" + CSV.replace(",", ";")),
        ("x.csv", "\n  \n,,\n" + CSV),
        ("x.csv", "# made on Monday\n" + CSV),
        ("x.csv", "path,label,,\na.png,cat,,\n\n,,,\nsub/é.png,dog\n"),
        ("x.csv", "path,label\na.png,cat,,\nsub/é.png,dog,\n"),
        ("x.csv", "path,note,label,note\na.png,1,cat,2\nsub/é.png,1,dog,2\n"),
        ("x.csv", CSV.encode("utf-16")),
        ("x.csv", b"\xfe\xff" + CSV.encode("utf-16-be")),
        ("x.csv", CSV.encode("utf-32")),
        ("x.tsv", CSV.replace(",", "\t").encode("utf-16")),
        ("x.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("x.ndjson", "\r\n".join(map(json.dumps, ROWS))),
        ("x.jsonl", ("\n".join(map(json.dumps, ROWS))).encode("utf-16")),
        ("x.jsonl", '{"File Name": "a.png", "LABEL": "cat"}\n{"label": "dog", "img": "sub/é.png", "x": [{}]}\n'),
        ("x.json", json.dumps(ROWS)),
        ("x.json", json.dumps({"version": 1, "x": [1.5, None], "predictions": ROWS, "z": 2}, indent=1)),
        ("x.json", "\ufeff" + json.dumps(ROWS, ensure_ascii=False, indent=4)),
    ],
)
def test_the_same_rows_are_read_from_every_way_to_write_them(tmp_path, name, data):
    rows = rows_of(tmp_path / name, data)

    assert [{**row, "label": row["label"].strip()} for row in rows] == ROWS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.csv", "path,label,label\na.png,x,y\n", r"x.csv, line 1: 2 columns are called 'label'; keep one"),
        ("x.csv", "path,Path,label\na.png,x,y\n", r"line 1: 2 columns are called 'path' and 'Path'; keep one"),
        ("x.csv", "\nfile,image,label\n1,2,3\n", r"line 2: the columns 'file' and 'image' may each be the path; keep"),
        ("x.csv", "path,class,category\n1,2,3\n", r"line 1: the columns 'class' and 'category' may each be the label"),
        ("x.csv", "a.png,cat\n", r"line 1: no column for paths \(path, file, .*\) among 'a.png', 'cat'; add a heading"),
        ("x.csv", "path,label\nx,y.png,cat\n", r"line 2: not 2 cells, .* but 3; a cell that holds ',' needs double"),
        ("x.csv", "path\nx,y.png\n", r"line 2: not 1 cells, .* but 2"),
        ("x.csv", 'path,label\na.png,x\n"b.png,x\nc.png,y\n', r"line 3: not CSV \(unexpected end of data\)"),
        ("x.csv", 'path,label\n"a".png,x\n', r"line 2: not CSV"),
        ("x.csv", 'path,label\n"a\nb.png",x\n,y\n', r"line 4: no path"),
        ("x.csv", "path,label\n" + "x" * 16_777_217, r"line 2: a row of more than 16,777,216 characters"),
        ("x.csv", 'path,label\n"' + "x\n" * (1 << 23), r"line \d+: a row of more than 16.* or a quote in it is"),
        ("x.csv", b"PK\x03\x04", r"x.csv is a zip file, as an Excel workbook is"),
        ("x.csv", CSV.encode("utf-16-le"), r"x.csv is UTF-16 without a byte-order mark; save it as UTF-8"),
        ("x.csv", b"\xff\xfe" + CSV.encode("utf-16-le") + b"\x00\xd8\x00", r"not valid UTF-16"),
        ("x.jsonl", '{"path": "a", "label": "x"}\n{"path": 7}\n', r"x.jsonl, line 2: the path is 7, not a string"),
        ("x.jsonl", '{"path": null}\n', r"line 1: the path is null, not a string"),
        ("x.jsonl", '{"path": ["a"]}\n', r"line 1: the path is a list, not a string"),
        ("x.jsonl", '{"path": "a", "path": "b"}\n', r"line 1: not JSON \(the key 'path' occurs twice\)"),
        ("x.jsonl", '{"path": "a", "file": "b"}\n', r"line 1: the columns 'path' and 'file' may each be the path"),
        ("x.jsonl", '{"path": "a"}\n\n{"label": "b"}\n', r"line 3: no path"),
        ("x.jsonl", '{"path": "a"}\n["b"]\n', r"line 2: not a JSON object"),
        ("x.json", '[{"path": "a"}, {"path": "b"}', r"x.json: not JSON \(',' or '\]' expected, it ends too early\)"),
        ("x.json", '[{"path": "a"}, 5]', r"x.json, element 2: not a JSON object"),
        ("x.json", '{"path": "a"}\n{"path": "b"}\n', r"it has no array predictions; a list is .* or a .jsonl"),
        ("x.json", '[{"path": "a"}]\n[]', r"not one JSON document"),
        ("x.json", '{"predictions": [{"path": "a"}', r"x.json: not JSON"),
        ("x.json", "[" * 100_000, r"x.json: not JSON"),
        ("x.json", "", r"not JSON \(it begins with neither"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused_in_one_line_with_its_place(tmp_path, name, data, message):
    with pytest.raises(DataError, match=message) as caught:
        rows_of(tmp_path / name, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["true", "false", "null", "1.0", "1e3", "NaN", "[1]", "{}", "-0.0"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_label_in_json_that_is_neither_text_nor_an_integer_is_refused_with_its_place(tmp_path, name, value):
    rows = ['{"path": "a.png", "label": "x"}', f'{{"path": "b.png", "label": {value}}}']
    data = "\n".join(rows) if name == "x.jsonl" else f"[{','.join(rows)}]"

    with pytest.raises(DataError, match=r"(line|element) 2: the label is .*, not a string or an integer"):
        rows_of(tmp_path / name, data)


@pytest.mark.parametrize("label", ["7", "-0", "12345678901234567890123"])
def test_an_integer_in_json_is_a_label_as_it_is_written(tmp_path, label):
    assert rows_of(tmp_path / "x.jsonl", f'{{"path": "a", "label": {label}}}') == [{"path": "a", "label": label}]


def test_only_the_columns_that_are_wanted_must_be_clear(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"path": "a", "label": 1.5, "class": "x", "Label": null}\n')

    assert [fields for _, fields in open_list_file(path, frozenset({"path"})).rows] == [{"path": "a"}]


def test_a_manifest_stays_one_with_columns_added_removed_and_in_another_order(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Note;label;STATUS;path;corrected_label\nx;'=a;ok;caf\\xe9.png;'@b\n", encoding="utf-8-sig")

    opened = open_list_file(path)

    assert opened.is_manifest
    assert list(opened.rows) == [
        (2, {"path": "caf\udce9.png", "label": "=a", "status": "ok", "corrected_label": "@b"}),
    ]


def test_a_list_with_a_status_of_its_own_is_no_manifest(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("path,status,label\n'a.png,new,x\n")

    opened = open_list_file(path)

    assert (opened.is_manifest, [fields["path"] for _, fields in opened.rows]) == (False, ["'a.png"])
