import csv
import io
import sqlite3

import numpy as np
import pytest
from PIL import Image

from modeling.data.cache import FILE_NAME, CachedFacts, FactsCache
from modeling.data.duplicates import MAX_SET
from modeling.data.facts import ImageFacts, check_image
from modeling.data.forms.open import open_dataset
from modeling.data.scan import scan_dataset
from modeling.errors import DataError
from tests.support.images import encode, glyph, idx_bytes, make_class_folders, make_idx
from tests.support.pictures import photo, photo_png, plates, write_files


def scan(path, cache=None):
    return scan_dataset(open_dataset(path), lambda event: None, cache)


def told(report):
    return [(finding.severity, finding.code) for finding in report.findings]


def message_of(report, code: str) -> str:
    return next(finding.message for finding in report.findings if finding.code == code)


def contents(root):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(root.rglob("*")) if not path.is_dir()}


def test_a_sound_data_set_has_no_findings(tmp_path):
    write_files(tmp_path, {f"{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(3)})

    report = scan(tmp_path)

    assert (report.findings, report.errors, report.duplicates) == ((), {}, ())
    assert report.facts == (ImageFacts((96, 72), "RGB", "PNG", 1, (), False, b""),) * 6
    assert report.groups_N.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(set(report.digests)) == 6
    report.check_trainable()


def test_a_scan_tells_how_far_it_is_and_changes_nothing(tmp_path):
    make_class_folders(tmp_path, 20)
    (tmp_path / "across" / "broken.png").write_bytes(b"x")
    before = contents(tmp_path)
    events = []

    scan_dataset(open_dataset(tmp_path), events.append, None)

    assert events[-2] == {"event": "scan", "num_done": 41, "num_images": 41}
    assert (events[-1]["event"], events[-1]["text"]) == ("phase", "comparing the images")
    assert contents(tmp_path) == before


def test_images_that_do_not_load_are_told_though_their_header_does(tmp_path):
    jpeg = encode(photo(9, (640, 480)), "JPEG")
    files = {f"{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(3)}
    write_files(tmp_path, {**files, "a/cut.jpg": jpeg[:-500], "a/empty.jpg": b"", "b/text.png": b"hello"})
    (tmp_path / "b" / "zero.png").symlink_to(tmp_path / "nowhere")

    report = scan(tmp_path)

    assert {report.dataset.name(index): code for index, (code, _) in report.errors.items()} == {
        "a/cut.jpg": "truncated",
        "a/empty.jpg": "empty",
        "b/text.png": "not_an_image",
        "b/zero.png": "missing",
    }
    assert told(report) == [("warning", "unreadable")]
    assert message_of(report, "unreadable").startswith("4 of 10 images cannot be read and are left out (1 truncated, ")
    assert report.readable_N.tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2


def test_images_that_are_all_corrupt_cannot_be_trained_on(tmp_path):
    write_files(tmp_path, {"a/1.png": b"x", "a/2.png": b"y", "b/1.png": b"z"})

    report = scan(tmp_path)

    with pytest.raises(DataError, match=r"none of the 3 images in .* can be read; for one, a/1.png: not_an_image: "):
        report.check_trainable()
    assert told(report) == [("error", "none_readable")]
    assert report.to_json()["trainable"] is False


def test_a_class_of_which_nothing_can_be_read_is_an_error(tmp_path):
    make_class_folders(tmp_path, 5)
    write_files(tmp_path, {"third/x.jpg": b"nothing"})

    with pytest.raises(DataError, match=r"no image of class third .* can be read; for one, third/x.jpg: not_an_image"):
        scan(tmp_path).check_trainable()


def test_one_image_per_class_is_an_error_unless_there_is_a_validation_part(tmp_path):
    write_files(tmp_path / "x", {"a/1.png": photo_png(1), "b/1.png": photo_png(2)})
    files = {
        "train/a/1.png": photo_png(1),
        "train/b/1.png": photo_png(2),
        "val/a/3.png": photo_png(3),
        "val/b/3.png": photo_png(4),
    }
    write_files(tmp_path / "y", files)

    with pytest.raises(DataError, match="has only one image"):
        scan(tmp_path / "x").check_trainable()
    assert told(scan(tmp_path / "y")) == [("warning", "few_images")]


def test_small_classes_and_imbalance_are_told(tmp_path):
    files = {f"large/{n}.png": photo_png(n) for n in range(20)}
    write_files(tmp_path, {**files, "small/1.png": photo_png(100), "small/2.png": photo_png(101)})

    report = scan(tmp_path)

    assert told(report) == [("warning", "few_images"), ("warning", "imbalance")]
    assert "too few images for training, validation and test: small (2);" in message_of(report, "few_images")
    assert "class large has 20 images to learn from and small 2, 10 times fewer" in message_of(report, "imbalance")


def test_tiny_blank_turned_and_odd_images_are_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {f"{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(3)}
    files["a/tiny.png"] = encode(photo(1, (20, 7)))
    files["a/blank.png"] = encode(Image.new("RGB", (40, 40), (9, 8, 7)))
    files["b/turned.png"] = encode(photo(2), exif=exif)
    files["b/cmyk.jpg"] = encode(photo(3).convert("CMYK"), "JPEG")
    files["b/moving.gif"] = encode(photo(4).convert("P"), "GIF", save_all=True, append_images=[photo(5).convert("P")])

    report = scan(write_files(tmp_path, files))

    assert told(report) == [
        ("warning", "tiny"),
        ("warning", "single_colour"),
        ("info", "turned"),
        ("info", "modes"),
        ("info", "frames"),
    ]
    assert [(row.path, row.reason) for row in report.quarantine()] == [
        ("a/tiny.png", "tiny"),
        ("a/blank.png", "single_colour"),
    ]


def doubled(root):
    """Copies within a class, in two classes, and a near copy in another class."""
    files = {f"{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(3)}
    files |= {"a/same.png": files["a/0.png"], "b/other.png": files["a/1.png"]}
    files["b/shrunk.png"] = encode(photo(20 + ord("a")).resize((48, 36)))
    return write_files(root, files)


def test_duplicates_are_told_apart_by_kind_and_by_class(tmp_path):
    report = scan(doubled(tmp_path))

    names = [[report.dataset.name(index) for index in found.indices] for found in report.duplicates]
    assert names == [["a/0.png", "a/same.png"], ["a/1.png", "b/other.png"], ["a/2.png", "b/shrunk.png"]]
    assert [found.exact for found in report.duplicates] == [True, True, False]
    assert report.groups_N.tolist() == [0, 1, 2, 0, 4, 5, 6, 1, 2]
    assert told(report) == [
        ("warning", "duplicates_across_classes"),
        ("warning", "near_duplicates_across_classes"),
        ("info", "duplicates"),
    ]


def test_images_that_look_too_much_alike_are_told_and_split_one_by_one(tmp_path):
    alike = plates(MAX_SET + 2, noise=4)
    files = {f"{'ab'[number % 2]}/{number:02}.png": data for number, data in enumerate(alike)}

    report = scan(write_files(tmp_path, files))

    assert told(report) == [("warning", "look_alikes")]
    assert message_of(report, "look_alikes").startswith("12 images are so similar that near duplicates among them ")
    assert report.groups_N.tolist() == list(range(12))
    assert report.to_json()["num_look_alikes"] == 12


def test_the_quarantine_list_names_each_image_and_why(tmp_path):
    root = doubled(tmp_path / "data")
    write_files(root, {"a/=1+1.png": b"", "a/caf\udce9.png": b"x"})

    count = scan(root).write_quarantine(tmp_path / "q.csv")

    with (tmp_path / "q.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert count == len(rows)
    assert [(row["path"], row["label"], row["reason"]) for row in rows] == [
        ("a/=1+1.png", "a", "empty"),
        ("a/caf\\xe9.png", "a", "not_an_image"),
        ("a/same.png", "a", "duplicate"),
        ("a/1.png", "a", "duplicate_across_classes"),
        ("b/other.png", "b", "duplicate_across_classes"),
        ("a/2.png", "a", "near_duplicate_across_classes"),
        ("b/shrunk.png", "b", "near_duplicate_across_classes"),
    ]
    assert rows[3]["detail"] == "the same picture as b/other.png"


def test_a_label_that_a_spreadsheet_would_run_is_made_harmless(tmp_path):
    write_files(tmp_path / "data", {"=cmd/1.png": b"", "=cmd/2.png": photo_png(1), "b/1.png": photo_png(2)})

    scan(tmp_path / "data").write_quarantine(tmp_path / "q.csv")

    assert (tmp_path / "q.csv").read_text().splitlines()[1].startswith("'=cmd/1.png,'=cmd,empty,")


def test_training_images_that_are_test_images_too_are_leaked(tmp_path):
    files = {f"train/{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(4)}
    files |= {f"test/{label}/{n}.png": photo_png(500 + ord(label)) for label in "ab" for n in range(1)}
    files["test/a/copy.png"] = files["train/a/0.png"]
    files["test/b/shrunk.png"] = encode(photo(10 + ord("b")).resize((48, 36)))

    report = scan(write_files(tmp_path, files))

    assert [report.dataset.name(index) for index in np.flatnonzero(report.leaked_N)] == [
        "train/a/0.png",
        "train/b/1.png",
    ]
    assert ("warning", "duplicates_across_parts") in told(report)
    assert {row.reason for row in report.quarantine()} == {"duplicate_across_parts", "near_duplicate_across_parts"}
    assert (report.to_json()["parts"], report.to_json()["num_leaked"]) == ({"train": 8, "test": 4}, 2)


def test_a_class_whose_training_images_are_all_test_images_is_an_error(tmp_path):
    files = {f"train/{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(2)}
    files |= {f"test/a/{n}.png": files[f"train/a/{n}.png"] for n in range(2)}

    with pytest.raises(DataError, match=r"every training image of class a .* is a duplicate of a test"):
        scan(write_files(tmp_path, files)).check_trainable()


def test_near_duplicates_are_found_in_idx_files_as_well(tmp_path):
    make_idx(tmp_path, 8, 2)
    pictures = [np.asarray(photo(seed, (28, 28)).convert("L")) for seed in range(8)]
    darker = [np.rint(pictures[index] * 0.9) for index in (5, 2)]
    for part, chosen in (("train", pictures), ("t10k", darker)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(np.stack(chosen)))

    report = scan(tmp_path)

    assert [(found.indices, found.exact) for found in report.duplicates] == [((2, 9), False), ((5, 8), False)]
    assert np.flatnonzero(report.leaked_N).tolist() == [2, 5]
    assert report.facts[0] == ImageFacts((28, 28), "L", "pixels", 1, (), True, b"")
    assert report.flat == ()


def test_a_test_image_of_cifar10_that_was_encoded_again_is_no_training_image(tmp_path):
    """Of CIFAR-10's own test images, one in thirty has a near duplicate in training (Barz, Denzler 2020)."""
    pictures = [photo(seed, (32, 32)) for seed in range(11)]
    pictures[3] = Image.open(io.BytesIO(encode(pictures[10], "JPEG", quality=85)))
    records = [bytes([number % 2]) + planes(picture) for number, picture in enumerate(pictures)]
    for number in range(5):
        (tmp_path / f"data_batch_{number + 1}.bin").write_bytes(b"".join(records[2 * number : 2 * number + 2]))
    (tmp_path / "test_batch.bin").write_bytes(records[10])

    report = scan(tmp_path)

    assert [(found.indices, found.exact) for found in report.duplicates] == [((3, 10), False)]
    assert np.flatnonzero(report.leaked_N).tolist() == [3]


def planes(picture: Image.Image) -> bytes:
    return np.moveaxis(np.asarray(picture), 2, 0).tobytes()


def test_the_json_holds_counts_kinds_and_names(tmp_path):
    shown = scan(doubled(tmp_path)).to_json()

    assert shown["classes"] == {"a": 4, "b": 5}
    assert (shown["num_images"], shown["num_exact_duplicate_sets"], shown["num_near_duplicate_sets"]) == (9, 2, 1)
    assert (shown["formats"], shown["modes"]) == ({"PNG": 9}, {"RGB": 9})
    assert shown["sizes"] == {
        "smallest": "48 x 36",
        "median": "96 x 72",
        "largest": "96 x 72",
        "num_distinct": 2,
        "most_common": {"96 x 72": 8, "48 x 36": 1},
    }
    assert shown["duplicates"][1] == {
        "exact": True,
        "labels": ["a", "b"],
        "parts": [],
        "images": ["a/1.png", "b/other.png"],
    }


def same(first, second) -> bool:
    return first.to_json() == second.to_json() and first.digests == second.digests and first.facts == second.facts


def test_a_second_scan_decodes_nothing_that_it_knows(tmp_path, monkeypatch):
    root = doubled(tmp_path / "data")
    write_files(root, {"a/bad.png": b"bad"})
    first = scan(root, tmp_path / "cache")
    for path in root.rglob("*.png"):
        path.touch()  # known by content, whatever the time
    (root / "a" / "0.png").rename(root / "a" / "0 renamed.png")
    (root / "a" / "0 renamed.png").rename(root / "a" / "0.png")
    decoded = []
    monkeypatch.setattr("modeling.data.scan.check_image", decoded.append)

    second = scan(root, tmp_path / "cache")

    assert decoded == []
    assert same(first, second)


@pytest.mark.parametrize("damage", ["no database", "a strange row"])
def test_a_damaged_cache_costs_time_and_a_line_only(tmp_path, damage):
    root = doubled(tmp_path / "data")
    first = scan(root, tmp_path / "cache")
    if damage == "no database":
        (tmp_path / "cache" / FILE_NAME).write_bytes(b"no database at all" * 100)
    else:
        with sqlite3.connect(tmp_path / "cache" / FILE_NAME) as database:
            database.execute("UPDATE images SET thumbnail = x'00'")

    second = scan(root, tmp_path / "cache")

    assert told(second) == [*told(first), ("info", "cache_unusable")]
    assert (second.digests, second.facts) == (first.digests, first.facts)


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()

    report = scan(make_class_folders(tmp_path / "data", 4), tmp_path / "file" / "cache")

    assert told(report)[-1] == ("info", "cache_unusable")


def test_images_with_the_same_name_and_another_content_are_looked_at_again(tmp_path):
    root = write_files(tmp_path / "data", {"a/1.png": photo_png(1), "a/2.png": photo_png(2), "b/1.png": photo_png(3)})
    scan(root, tmp_path / "cache")
    (root / "a" / "1.png").write_bytes(encode(glyph(0, 1)))

    assert scan(root, tmp_path / "cache").facts[0].size == (12, 12)


def test_scans_at_the_same_time_share_a_cache(tmp_path):
    facts = check_image(photo_png(1))
    verdicts = {f"{number:064x}": CachedFacts(facts, None) for number in range(600)}
    error = CachedFacts(None, ("empty", "the file is empty (0 bytes)"))

    with FactsCache(tmp_path) as ours, FactsCache(tmp_path) as theirs:
        for number, (digest, verdict) in enumerate(verdicts.items()):
            (ours if number % 2 else theirs).put(digest, verdict)
            theirs.put("both", error)
            ours.put("both", error)

    with FactsCache(tmp_path) as later:
        assert {digest: later.get(digest) for digest in [*verdicts, "both", "none"]} == {
            **verdicts,
            "both": error,
            "none": None,
        }
        assert (ours.trouble, theirs.trouble, later.trouble) == (None, None, None)
