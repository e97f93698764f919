"""Several data sets as one: names, classes, parts, corrections, and what they contradict each other about."""

import numpy as np
import pytest

from modeling.data.dataset import FREE, TEST, TRAIN, Source
from modeling.data.forms.joined import CORRECTIONS, open_datasets
from modeling.data.forms.open import open_dataset
from modeling.data.scan import scan_dataset
from modeling.data.splits import split_dataset
from modeling.errors import DataError
from tests.support.images import make_idx, touch
from tests.support.pictures import photo_png, write_files

MANIFEST = "path,status,label,score,decision,corrected_label\n"


def labels_of(dataset):
    return {dataset.name(index): dataset.labels[target] for index, target in enumerate(dataset.targets_N)}


def manifest(path, *rows):
    path.write_text(MANIFEST + "".join(f"{row}\n" for row in rows))
    return path


def messages(dataset, code):
    return [finding.message for finding in dataset.findings if finding.code == code]


def test_one_data_set_is_opened_as_ever(tmp_path):
    data = touch(tmp_path, "data/cat/1.png", "data/dog/2.png") / "data"

    assert labels_of(open_datasets([data])) == labels_of(open_dataset(data))
    assert open_datasets([data]).sources == ()


def test_classes_are_joined_by_name_and_images_named_below_the_folder_that_holds_all(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/c/cat /1.png", "b/c/fox/2.png")
    (tmp_path / "list.csv").write_text("path,label\nloose/9.png,dog\n")
    touch(tmp_path, "loose/9.png")

    dataset = open_datasets([tmp_path / "a", tmp_path / "b/c", tmp_path / "list.csv"])

    assert (dataset.kind, dataset.labels, dataset.parts_N) == ("joined", ("cat", "dog", "fox"), None)
    assert labels_of(dataset) == {
        "a/cat/1.png": "cat", "a/dog/1.png": "dog", "b/c/cat /1.png": "cat", "b/c/fox/2.png": "fox",
        "loose/9.png": "dog",
    }  # fmt: skip
    assert dataset.shown == f"{tmp_path}/a, {tmp_path}/b/c and {tmp_path}/list.csv"
    assert dataset.sources == (
        Source(f"{tmp_path}/a", "folders", 2),
        Source(f"{tmp_path}/b/c", "folders", 2),
        Source(f"{tmp_path}/list.csv", "list", 1),
    )


def test_a_data_set_may_hold_one_class_only_and_differences_in_case_are_told(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/Cat/1.png", "c/dog/2.png")

    with pytest.raises(DataError, match=r"one class only"):
        open_datasets([tmp_path / "c"])
    assert open_datasets([tmp_path / "a", tmp_path / "c"]).num_images == 3
    joined = open_datasets([tmp_path / "a", tmp_path / "b"])
    assert messages(joined, "names_differ_by_case") == [
        "the names of classes Cat and cat differ in upper and lower case only; rename one of them if they are one class"
    ]


def test_an_empty_class_folder_is_an_error_unless_another_data_set_has_images_of_it(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/fox/1.png", "c/dog/2.png")
    (tmp_path / "a/fox").mkdir()

    assert open_datasets([tmp_path / "a", tmp_path / "b"]).labels == ("cat", "dog", "fox")
    with pytest.raises(DataError, match=r"class fox of .*/a and .*/c holds no images; remove or fill its folder"):
        open_datasets([tmp_path / "a", tmp_path / "c"])


def test_official_parts_of_one_are_kept_beside_one_without(tmp_path):
    touch(tmp_path, "a/train/cat/1.png", "a/train/dog/1.png", "a/test/cat/2.png", "b/cat/3.png", "b/fox/4.png")

    dataset = open_datasets([tmp_path / "a", tmp_path / "b"])

    parts = dict(zip(labels_of(dataset), dataset.parts_N.tolist(), strict=True))
    assert parts == {
        "a/train/cat/1.png": TRAIN, "a/train/dog/1.png": TRAIN, "a/test/cat/2.png": TEST, "b/cat/3.png": FREE,
        "b/fox/4.png": FREE,
    }  # fmt: skip


def test_a_class_that_only_the_test_part_of_one_has_may_be_learned_from_another(tmp_path):
    touch(tmp_path, "a/test/cat/2.png", "a/test/dog/2.png", "b/cat/3.png", "b/dog/4.png", "c/cat/3.png", "c/fox/4.png")

    assert open_datasets([tmp_path / "a", tmp_path / "b"]).num_images == 4
    with pytest.raises(DataError, match=r"the test part holds class dog, which the train part lacks"):
        open_datasets([tmp_path / "a", tmp_path / "c"])


@pytest.mark.parametrize("first", ["photos", "corrected.csv"])
def test_a_corrected_label_replaces_the_folders_in_any_order_and_a_models_answer_yields(tmp_path, first):
    touch(tmp_path, "photos/cat/1.png", "photos/cat/2.png", "photos/dog/3.png", "photos/dgo/4.png", "inbox/5.png")
    touch(tmp_path, "inbox/6.png", "inbox/7.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    manifest(
        tmp_path / "corrected.csv",
        "photos/cat/1.png,ok,cat,0.9,accept,dog",  # corrected
        "photos/cat/2.png,ok,dog,0.9,accept,",  # the model's own: the folder knows better
        "photos/dog/3.png,ok,dog,0.9,accept,",
        "link/dgo/4.png,ok,cat,0.4,review,dog",  # the last image of a mistyped class, by another way
        "inbox/5.png,ok,cat,0.9,accept,",  # only the model's own label
        "inbox/6.png,ok,cat,0.4,review,dog",
        "inbox/7.png,ok,cat,0.4,review,",  # nobody looked
    )

    dataset = open_datasets(sorted([tmp_path / "photos", tmp_path / "corrected.csv"], key=lambda p: p.name != first))

    found = {name.removeprefix("link/").removeprefix("photos/"): label for name, label in labels_of(dataset).items()}
    assert found == {
        "cat/1.png": "dog", "cat/2.png": "cat", "dog/3.png": "dog", "dgo/4.png": "dog", "inbox/5.png": "cat",
        "inbox/6.png": "dog",
    }  # fmt: skip
    assert dataset.labels == ("cat", "dog")
    assert messages(dataset, CORRECTIONS) == [
        f"{tmp_path}/corrected.csv: 3 corrected, 1 of them not in {tmp_path}/photos; for 1 images the label there "
        "counts, not the model's own"
    ]
    assert messages(dataset, "repeated_images") == ["4 images are in several of the data sets and count once"]


def test_a_corrected_image_keeps_its_official_part(tmp_path):
    touch(tmp_path, *(f"photos/{part}/{label}/1.png" for part in ("train", "test") for label in ("cat", "dog")))
    manifest(tmp_path / "corrected.csv", "photos/test/cat/1.png,ok,cat,0.9,accept,dog")

    dataset = open_datasets([tmp_path / "photos", tmp_path / "corrected.csv"])

    place = list(labels_of(dataset)).index("photos/test/cat/1.png")
    assert (dataset.labels[dataset.targets_N[place]], dataset.parts_N[place]) == ("dog", TEST)


def test_two_labels_or_two_parts_for_one_file_are_an_error_that_names_both(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/2.png")
    (tmp_path / "b.csv").write_text("path,label\na/cat/1.png,dog\na/dog/2.png,dog\n")
    (tmp_path / "c.csv").write_text("path,label,part\na/cat/1.png,cat,test\na/dog/2.png,dog,train\n")
    (tmp_path / "d.csv").write_text("path,label,part\na/cat/1.png,cat,train\na/dog/2.png,dog,\n")
    manifest(tmp_path / "e.csv", "a/cat/1.png,ok,cat,1,accept,dog")
    manifest(tmp_path / "f.csv", "a/cat/1.png,ok,cat,1,accept,fox")

    with pytest.raises(DataError, match=r"about 1 file: .*/1.png is cat in .*/a and dog in .*/b.csv; keep one of"):
        open_datasets([tmp_path / "a", tmp_path / "b.csv"])
    with pytest.raises(DataError, match=r"1.png is in the test part of .*/c.csv and train part of .*/d.csv"):
        open_datasets([tmp_path / "c.csv", tmp_path / "d.csv"])
    with pytest.raises(DataError, match=r"1.png is dog in .*/e.csv and fox in .*/f.csv"):
        open_datasets([tmp_path / "a", tmp_path / "e.csv", tmp_path / "f.csv"])


def test_two_names_of_a_file_in_one_data_set_stay_two_images(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/2.png", "b/cat/3.png")
    (tmp_path / "a/cat/9.png").symlink_to(tmp_path / "a/cat/1.png")

    assert labels_of(open_datasets([tmp_path / "a", tmp_path / "b"])) == {
        "a/cat/1.png": "cat", "a/cat/9.png": "cat", "a/dog/2.png": "dog", "b/cat/3.png": "cat",
    }  # fmt: skip


def test_layout_is_for_the_folders_among_the_data_sets(tmp_path):
    touch(tmp_path, "a/train/1.png", "a/bus/1.png", "b/train/2.png", "b/test/1.png")
    (tmp_path / "c.csv").write_text("path,label\na/bus/1.png,bus\n")

    joined = open_datasets([tmp_path / "a", tmp_path / "b", tmp_path / "c.csv"], "classes")

    assert joined.labels == ("bus", "test", "train")
    with pytest.raises(DataError, match=r"--layout classes is for folders"):
        open_datasets([tmp_path / "c.csv", tmp_path / "c.csv"], "classes")


def test_findings_name_the_data_set_that_they_are_about(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/1.png", "a/dog/notes.txt", "b/cat/2.png", "b/dog/x.doc", "b/dog/y.doc")

    joined = open_datasets([tmp_path / "a", tmp_path / "b"])

    assert messages(joined, "other_entries") == [
        f"{tmp_path}/a: 1 files without an image's extension were ignored",
        f"{tmp_path}/b: 2 files without an image's extension were ignored",
    ]
    assert joined.num_ignored == 3


# Pixels


def test_pixels_of_one_size_are_joined_and_named_by_data_set(tmp_path):
    make_idx(tmp_path / "x", num_train=4, num_test=2)
    make_idx(tmp_path / "y", num_train=2, num_test=2)

    dataset = open_datasets([tmp_path / "x", tmp_path / "y"])

    assert [dataset.name(index) for index in range(dataset.num_images)] == [
        *(f"x/train/{n}" for n in range(4)), "x/test/0", "x/test/1", "y/train/0", "y/train/1", "y/test/0", "y/test/1",
    ]  # fmt: skip
    alone = [open_dataset(tmp_path / name) for name in "xy"]
    assert np.array_equal(dataset.pixels_NHWC, np.concatenate([each.pixels_NHWC for each in alone]))
    assert dataset.parts_N.tolist() == [each for one in alone for each in one.parts_N.tolist()]
    assert dataset.targets_N.tolist() == [each for one in alone for each in one.targets_N.tolist()]


def test_pixels_are_not_joined_with_files(tmp_path):
    make_idx(tmp_path / "x", num_train=4, num_test=2)
    touch(tmp_path, "a/cat/1.png", "a/dog/1.png")

    with pytest.raises(DataError, match=r"/x stores pixels without image files, which cannot be joined with image"):
        open_datasets([tmp_path / "x", tmp_path / "a"])


# Copies across data sets


def test_copies_in_two_data_sets_stay_in_one_part_and_two_labels_are_told(tmp_path):
    files = {f"a/{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "cd" for n in range(6)}
    copies = {f"b/{label}/{n}.png": files[f"a/{label}/{n}.png"] for label in "cd" for n in range(6)}
    copies |= {"b/d/other.png": files["a/c/0.png"]}
    write_files(tmp_path, files | copies)

    dataset = open_datasets([tmp_path / "a", tmp_path / "b"])
    report = scan_dataset(dataset, lambda event: None, None)
    split = split_dataset(dataset, report, seed=0, validation=0.2, test=0.2)

    part_of = {index: name for name in ("train", "validation", "test") for index in getattr(split, name).tolist()}
    parts = [{part_of[index] for index in found.indices} for found in report.duplicates]
    assert len(parts) == 12
    assert all(len(each) == 1 for each in parts)
    assert {name for each in parts for name in each} == {"train", "validation", "test"}
    found = [finding.message for finding in report.findings if finding.code == "duplicates_across_classes"]
    assert found == [
        "3 images in 1 set are the same bytes in different classes (a/c/0.png = b/d/other.png); at most one class is "
        "right"
    ]


def test_images_that_are_copies_of_anothers_test_images_are_not_trained_on(tmp_path):
    files = {f"a/{part}/{label}/{n}.png": photo_png(10 * n + ord(label) + 1000 * (part == "test"))
             for part in ("train", "test") for label in "cd" for n in range(3)}  # fmt: skip
    write_files(tmp_path, files | {"b/c/copy.png": files["a/test/c/0.png"], "b/d/new.png": photo_png(7777)})

    dataset = open_datasets([tmp_path / "a", tmp_path / "b"])
    report = scan_dataset(dataset, lambda event: None, None)
    split = split_dataset(dataset, report, seed=0, validation=0.2, test=0.2)

    assert [dataset.name(index) for index in split.leaked] == ["b/c/copy.png"]
