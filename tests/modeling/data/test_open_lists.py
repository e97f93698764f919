"""Lists of path and label, and manifests with corrected labels."""

import json
import os
from unicodedata import normalize

import pytest

from modeling.data.dataset import FREE, TEST, TRAIN, VALIDATION
from modeling.data.forms.open import open_dataset
from modeling.errors import DataError


def make_images(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path, text: str):
    path.write_bytes(os.fsencode(text))
    return path


def rows_of(dataset):
    labels = [dataset.labels[target] for target in dataset.targets_N]
    return [(dataset.name(index), label) for index, label in enumerate(labels)]


def test_a_csv_of_path_and_label_is_read(tmp_path):
    make_images(tmp_path, "a/1.png", "a/2.png", "elsewhere/3.png")
    text = f"\ufefflabel,path,note\ncat,a/1.png,\n dog ,a/2.png,x\ncat,{tmp_path}/elsewhere/3.png,\n"

    dataset = open_dataset(write(tmp_path / "labels.csv", text))

    assert (dataset.kind, dataset.labels, dataset.parts_N) == ("list", ("cat", "dog"), None)
    assert rows_of(dataset) == [("a/1.png", "cat"), ("a/2.png", "dog"), ("elsewhere/3.png", "cat")]
    assert dataset.files[0] == tmp_path / "a/1.png"


def test_a_spreadsheets_semicolons_and_a_name_with_a_comma_are_read(tmp_path):
    make_images(tmp_path, "a, b.png", "c.png")

    dataset = open_dataset(write(tmp_path / "labels.csv", 'path;label\r\n"a, b.png";cat\r\nc.png;dog\r\n'))

    assert rows_of(dataset) == [("a, b.png", "cat"), ("c.png", "dog")]


def test_a_jsonl_gives_parts_and_numbers_as_labels(tmp_path):
    make_images(tmp_path, "1.png", "2.png", "3.png", "4.png", "5.png")
    parts = ("train", "val", "test", None, "training")
    rows = [{"path": f"{n}.png", "label": n // 5, "part": part} for n, part in enumerate(parts, start=1)]
    rows[1]["label"] = rows[2]["label"] = 1
    text = "\n".join(json.dumps(row) for row in rows) + "\n\n"

    dataset = open_dataset(write(tmp_path / "labels.jsonl", text))

    assert dataset.labels == ("0", "1")
    assert dataset.parts_N.tolist() == [TRAIN, VALIDATION, TEST, FREE, TRAIN]


def test_a_class_has_one_name_in_whatever_unicode_form_and_with_whatever_spaces_it_is_written(tmp_path):
    make_images(tmp_path, "1.png", "2.png", "3.png")
    text = f"path,label\n1.png,{normalize('NFD', 'é')} \n2.png,\u00a0{normalize('NFC', 'é')}\n3.png,b\n"

    dataset = open_dataset(write(tmp_path / "labels.csv", text))

    assert dataset.labels == ("b", "\u00e9")
    assert dataset.targets_N.tolist() == [1, 1, 0]


LIKE_SCORES = ("cat:0.999999;dog", "a;b", "7", "-1", "x:y", "=sum")


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_labels_that_look_like_scores_or_formulas_survive_lists_of_every_kind(tmp_path, kind):
    names = [f"{number}.png" for number in range(len(LIKE_SCORES))]
    make_images(tmp_path, *names)
    rows = [{"path": name, "label": label} for name, label in zip(names, LIKE_SCORES, strict=True)]
    text = {"json": json.dumps(rows), "jsonl": "\n".join(map(json.dumps, rows))}.get(kind)
    text = text or "path,label\n" + "".join(f'{row["path"]},"{row["label"]}"\n' for row in rows)

    dataset = open_dataset(write(tmp_path / f"labels.{kind}", text))

    assert rows_of(dataset) == list(zip(names, LIKE_SCORES, strict=True))


@pytest.mark.parametrize("label", ["a\x1b[31m", "a\u202eb", "\x9b"])
def test_a_label_that_cannot_be_seen_is_refused_with_its_line(tmp_path, label):
    make_images(tmp_path, "1.png")

    with pytest.raises(DataError, match=r"line 2: the label .* holds U\+[0-9A-F]{4}, which cannot be seen"):
        open_dataset(write(tmp_path / "labels.csv", f"path,label\n1.png,{label}\n"))


def test_missing_images_of_a_list_from_windows_are_told_how_their_paths_would_be_written(tmp_path):
    make_images(tmp_path, "sub/1.png", "sub/2.png")

    with pytest.raises(DataError, match=r"2 of 2 images are missing: .* Windows paths .* is there as 'sub/1.png'"):
        open_dataset(write(tmp_path / "x.csv", "path,label\nsub\\1.png,a\nsub\\2.png,b\n"))


def test_missing_images_of_a_list_that_lies_elsewhere_are_told_where_to_put_it(tmp_path):
    make_images(tmp_path, "images/1.png", "images/2.png")

    with pytest.raises(DataError, match=rf"put the list into '{tmp_path}/images', or make its paths absolute"):
        open_dataset(write(tmp_path / "x.csv", "path,label\n1.png,a\n2.png,b\n"))


def test_images_in_a_folder_that_may_not_be_searched_are_a_matter_of_rights(tmp_path, monkeypatch):
    stat = os.stat

    def refuse(path, *args, **options):  # root may search every folder, so a folder's mode would not do here
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)

    with pytest.raises(DataError, match=r"2 of 2 images are missing: .*; the present user may not read them"):
        open_dataset(write(tmp_path / "x.csv", "path,label\nlocked/1.png,a\nlocked/2.png,b\n"))


def test_images_outside_of_a_lists_folder_are_counted(tmp_path):
    make_images(tmp_path, "in/1.png", "2.png", "3.png")

    dataset = open_dataset(write(tmp_path / "in/x.csv", f"path,label\n1.png,a\n../2.png,b\n{tmp_path}/3.png,b\n"))

    assert [finding.message for finding in dataset.findings] == [
        f"2 images lie outside of {tmp_path}/in, such as {tmp_path}/in/../2.png; reports show some"
    ]


def test_a_list_that_names_missing_images_says_how_many_and_which(tmp_path):
    make_images(tmp_path, "0.png")
    text = "path,label\n" + "".join(f"{number}.png,{number % 2}\n" for number in range(10))

    with pytest.raises(DataError) as caught:
        open_dataset(write(tmp_path / "labels.csv", text))
    assert str(caught.value) == (
        f"{tmp_path}/labels.csv: 9 of 10 images are missing: {tmp_path}/1.png, {tmp_path}/2.png, {tmp_path}/3.png and "
        f"6 more; paths are relative to the list's folder, {tmp_path}; fix or remove these rows"
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "names no images"),
        ("x.csv", "path,label\n", "names no images"),
        ("x.csv", "file,kind\n1.png,a\n", "line 2: no label; .* has the columns file, kind; expected "),
        ("x.csv", "path,label\n1.png,\n", "line 2: no label"),
        ("x.csv", "path,label\n,a\n", "line 2: no path"),
        ("x.csv", "path,label\n1.png,a\n2.png\n", "line 3: no label"),
        ("x.csv", "path,label\n1.png,a,b\n", "line 2: not 2 cells"),
        ("x.csv", "path,label,part\n1.png,a,holdback\n", "line 2: unknown part 'holdback'; choose train, "),
        ("x.csv", "path,label\n1.png,a\n2.png,a\n", r"one class only \(a\)"),
        ("x.csv", "path,label\n1.png,a\n2.png,b\n1.png,b\n", "1.png is labelled a in .*line 2 and b in .*line 4"),
        ("x.csv", "path,label,part\n1.png,a,train\n1.png,a,test\n", "1.png is in two parts, by .*line 2 and .*line 3"),
        ("x.csv", "path,label,part\n1.png,a,train\n2.png,b,test\n", "the test part holds class b, which the train"),
        ("x.csv", "path,label\n1.png,caf\udce9\n", r"line 2: the label 'caf\\\\xe9' is not UTF-8"),
        ("x.jsonl", '{"path": "1.png"\n', "line 1: not JSON"),
        ("x.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("x.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("x.json", '{"images": []}', "not a manifest: it has no array predictions"),
        ("x.json", '{"predictions": [{"path": "1.png"}]}', "element 1: no label; .* has the columns path;"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_used_say_where_and_why(tmp_path, name, text, message):
    make_images(tmp_path, "1.png", "2.png")

    with pytest.raises(DataError, match=message) as caught:
        open_dataset(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_a_row_that_repeats_an_image_counts_once(tmp_path):
    make_images(tmp_path, "1.png", "2.png")

    dataset = open_dataset(write(tmp_path / "x.csv", "path,label\n1.png,a\n2.png,b\n1.png,a\n"))

    assert rows_of(dataset) == [("1.png", "a"), ("2.png", "b")]
    assert [finding.code for finding in dataset.findings] == ["repeated_rows"]


MANIFEST = {
    "accepted.png": ("ok", "accept", "cat", None),
    "undecided.png": ("ok", None, "dog", None),
    "corrected.png": ("ok", "accept", "cat", "dog"),
    "checked.png": ("ok", "review", "cat", "cat"),
    "unsure.png": ("ok", "review", "cat", None),
    "rejected.png": ("ok", "reject", "dog", ""),
    "crashed.png": ("error", None, None, "=bird"),
    "broken.png": ("error", None, None, None),
    "caf\\xe9.png": ("ok", "accept", "=bird", None),
}
COUNTED = [
    ("accepted.png", "cat"),
    ("undecided.png", "dog"),
    ("corrected.png", "dog"),
    ("checked.png", "cat"),
    ("crashed.png", "=bird"),
    ("caf\\xe9.png", "=bird"),
]


def manifest_text(kind: str) -> str:
    keys = ("status", "decision", "label", "corrected_label")
    rows = [{"path": path, **dict(zip(keys, row, strict=True))} for path, row in MANIFEST.items()]
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    if kind == "json":
        return json.dumps({"version": 1, "predictions": rows}, indent=2)
    lines = [",".join(("path", *keys))]
    lines += [",".join(str(cell or "").replace("=", "'=") for cell in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_a_manifest_counts_corrected_rows_and_what_the_model_was_sure_of(tmp_path, kind):
    images = make_images(tmp_path / "im\udce9ges", *(COUNTED[number][0] for number in range(5)), "caf\udce9.png")
    manifest = write(tmp_path / f"out.{kind}", manifest_text(kind))
    root = str(images).replace("\udce9", "\\xe9")
    (tmp_path / f"out.{kind}.summary.json").write_text(json.dumps({"root": root}))

    dataset = open_dataset(manifest)

    assert (dataset.kind, dataset.labels) == ("manifest", ("=bird", "cat", "dog"))
    assert rows_of(dataset) == COUNTED
    assert dataset.files[-1] == images / "caf\udce9.png"
    assert [finding.message for finding in dataset.findings] == [
        "of 9 rows 3 count with corrected_label and 3 with the model's own label; left out are 2 of decision review or "
        "reject that nobody corrected, and 1 with an error"
    ]


def test_a_manifest_without_its_summary_is_relative_to_its_folder_and_says_what_is_missing(tmp_path):
    manifest = write(tmp_path / "out.csv", "path,status,label\n1.png,ok,a\n2.png,ok,b\n")

    with pytest.raises(DataError, match=r"2 of 2 images are missing: .*which out.csv.summary.json would say"):
        open_dataset(manifest)
    summary = write(tmp_path / "out.csv.summary.json", json.dumps({"root": str(tmp_path)}))
    with pytest.raises(DataError, match=rf"2.png; paths are relative to {tmp_path}, by out.csv.summary.json; fix or"):
        open_dataset(manifest)
    summary.unlink()
    make_images(tmp_path, "1.png", "2.png")
    assert rows_of(open_dataset(manifest)) == [("1.png", "a"), ("2.png", "b")]


def test_a_summary_without_a_root_is_refused(tmp_path):
    manifest = write(tmp_path / "out.csv", "path,status,label\n1.png,ok,a\n")
    (tmp_path / "out.csv.summary.json").write_text("{}")

    with pytest.raises(DataError, match=r"out.csv.summary.json has no root"):
        open_dataset(manifest)


def test_a_manifest_of_which_no_row_counts_is_refused(tmp_path):
    with pytest.raises(DataError, match="no row counts"):
        open_dataset(write(tmp_path / "out.csv", "path,status,label\n1.png,error,\n"))


def test_labels_and_corrections_follow_the_rule_of_class_names(tmp_path):
    make_images(tmp_path, "1.png", "2.png", "3.png", "4.png")
    rows = "1.png,ok,cat ,\n2.png,ok,cat ,cat \n3.png,ok,e\u0301,\n4.png,ok,dog,\u00e9\n"
    text = "path,status,label,corrected_label\n" + rows

    dataset = open_dataset(write(tmp_path / "out.csv", text))

    assert rows_of(dataset) == [("1.png", "cat"), ("2.png", "cat"), ("3.png", "\u00e9"), ("4.png", "\u00e9")]


def test_a_file_that_is_there_in_another_unicode_form_is_said_to_be(tmp_path):
    make_images(tmp_path, "e\u0301p.png", "2.png")

    with pytest.raises(
        DataError, match=r"in another Unicode form \(NFC or NFD\) \('\\xe9p.png' is there as 'e\\u0301p.png'\)"
    ):
        open_dataset(write(tmp_path / "labels.csv", "path,label\n\u00e9p.png,cat\n2.png,dog\n"))


def test_a_status_that_no_manifest_has_is_an_error_and_loses_no_row(tmp_path):
    make_images(tmp_path, "1.png", "2.png")
    text = "path,label,status\n1.png,cat,ok\n2.png,dog,checked\n"

    with pytest.raises(
        DataError, match=r"line 3: the status is 'checked', not ok or error, .*rename its column status"
    ):
        open_dataset(write(tmp_path / "labels.csv", text))


def test_parts_of_a_list_have_the_names_that_folders_may_have(tmp_path):
    parts = ("Training", "dev", "eval", "holdout", "test2017", "")
    make_images(tmp_path, *(f"{number}.png" for number in range(len(parts))), "cat.png", "dog.png")
    rows = [f"{number}.png,{'cat' if number % 2 else 'dog'},{part}" for number, part in enumerate(parts)]
    text = "\n".join(["path,label,split", *rows, "cat.png,cat,train", "dog.png,dog,train"])

    dataset = open_dataset(write(tmp_path / "labels.csv", text))

    assert dataset.parts_N.tolist()[: len(parts)] == [TRAIN, VALIDATION, VALIDATION, TEST, TEST, FREE]


@pytest.mark.parametrize("other", ["\u200bcat", "cat\u00ad", "\uff43at", "Cat\u2060"])
def test_classes_whose_names_look_alike_are_told(tmp_path, other):
    make_images(tmp_path, "1.png", "2.png")

    dataset = open_dataset(write(tmp_path / "labels.csv", f"path,label\n1.png,cat\n2.png,{other}\n"))

    assert [(finding.severity, finding.code) for finding in dataset.findings] == [("warning", "names_look_alike")]
    assert f"{other!a}" in dataset.findings[0].message
