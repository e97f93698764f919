"""Whether folders are classes, parts or something else; what cannot be told is an error that says how to tell."""

import pytest

from modeling.data.dataset import TEST, TRAIN, VALIDATION
from modeling.data.forms.layouts import part_of
from modeling.data.forms.open import open_dataset
from modeling.errors import DataError
from tests.support.images import touch

PAIR = ("{}/cat/1.png", "{}/dog/1.png")


def parts(*names):
    return [pattern.format(name) for name in names for pattern in PAIR]


def codes(dataset):
    return [finding.code for finding in dataset.findings]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Train", TRAIN), ("training", TRAIN), ("train_set", TRAIN), ("trainset", TRAIN), ("Training Data", TRAIN),
        ("train2017", TRAIN), ("data_train", TRAIN), ("train_images", TRAIN), ("VAL", VALIDATION),
        ("valid", VALIDATION), ("val_set", VALIDATION), ("dev", VALIDATION), ("eval", VALIDATION), ("testing", TEST),
        ("test-set", TEST), ("test1", TEST), ("holdout", TEST), ("trainer", None), ("train station", None),
        ("invalid", None), ("contest", None), ("device", None), ("cat", None),
    ],
)  # fmt: skip
def test_the_names_of_parts_are_known_in_all_their_forms(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize(
    "names",
    [("train", "val"), ("train_set", "val_set"), ("training", "dev"), ("Train", "VAL"), ("train2014", "val2014")],
)
def test_parts_are_parts_under_their_usual_names(tmp_path, names):
    dataset = open_dataset(touch(tmp_path, *parts(*names)))

    assert (dataset.kind, dataset.labels) == ("part_folders", ("cat", "dog"))
    assert sorted(dataset.parts_N.tolist()) == [TRAIN, TRAIN, VALIDATION, VALIDATION]


@pytest.mark.parametrize(
    "names",
    [
        ("train/1.png", "plane/1.png", "car/1.png"),
        ("train/1.png", "plane/day1/1.png", "car/1.png"),
        ("valid/1.png", "invalid/1.png"),
        ("test tube/a/1.png", "test strip/a/1.png"),
        ("my_train/1.png", "steam engine/1.png"),
        ("part1/1.png", "part2/1.png"),
        ("set_a/1.png", "set_b/1.png"),
        ("cat/1.png", "cat/day1/1.png", "dog/day1/1.png"),
        ("images/1.png", "drawings/1.png"),
        ("labels/1.png", "boxes/1.png"),
    ],
)
def test_folders_that_hold_images_are_classes_whatever_they_are_called(tmp_path, names):
    dataset = open_dataset(touch(tmp_path, *names))

    assert dataset.kind == "folders"
    assert dataset.labels == tuple(sorted({name.partition("/")[0] for name in names}))
    assert dataset.num_images == len(names)


def test_classes_with_folders_of_equal_names_are_classes_and_that_is_told(tmp_path):
    dataset = open_dataset(touch(tmp_path, "cat/day1/1.png", "cat/day2/1.png", "dog/day1/1.png"))

    assert (dataset.labels, codes(dataset)) == (("cat", "dog"), ["shared_folders"])
    assert "cat, dog hold no images but folders of equal names (day1)" in dataset.findings[0].message


def test_a_test_folder_of_images_beside_classes_is_told(tmp_path):
    dataset = open_dataset(touch(tmp_path, "cat/1.png", "dog/1.png", "test/1.png"))

    assert (dataset.labels, codes(dataset)) == (("cat", "dog", "test"), ["class_named_as_part"])


def test_folders_of_images_whose_names_hold_those_of_parts_are_told(tmp_path):
    dataset = open_dataset(touch(tmp_path, "trainA/1.png", "trainB/1.png", "testA/1.png", "testB/1.png"))

    assert (dataset.kind, codes(dataset)) == ("folders", ["class_named_as_part"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((*parts("train", "val"), "runs/1.png"), r"holds train, val, which are parts, and runs, which is not; move it"),
        ((*parts("train", "val"), "runs/exp/x.txt"), r"and runs, which is not"),
        ((*parts("train", "val"), "a/1.png", "b/1.png"), r"and a, b, which are not; move them away, or give --layout"),
        ((*parts("train"), "runs/1.png"), r"train, which is named as a part, and runs, which is not"),
        (parts("train", "holdout_a"), r"train, which is named as a part, and holdout_a, which is not"),
        (("train/1.png", "val/1.png", "runs/1.png"), r"train, val, which are parts, and runs"),
        (parts("fold1", "fold2"), r"holds fold1, fold2: folds of one data set, .*; if they are classes, give --layout"),
        (("Fold 1/1.png", "Fold 2/1.png"), r"Fold 1, Fold 2: folds"),
        (parts("split_1", "split_2"), r"split_1, split_2: folds"),
        (parts("my_train", "my_val"), r"my_train, my_val: parts of one data set by their names, .*; rename them"),
        (parts("1-Train", "2-Test"), r"1-Train, 2-Test: parts of one data set"),
        (parts("TrainA", "TestA"), r"TestA, TrainA: parts of one data set"),
        (parts("val", "test"), r"parts, not classes, and no train folder among them; add it, or give --layout classes"),
        (parts("train", "training"), r"two folders of the same part; keep one"),
        (("train/1.png", "test/2.png"), r"train holds images and no class folders, .*if test, train are the classes"),
        (("train/1.png", "test/2.png", "train.csv"), r"; if train.csv beside it holds the labels, give that"),
        ((*parts("train"), "test/1.png"), r"test holds no images in class folders; remove it"),
        ((*parts("train", "val"), "train/bird/x.txt"), r"train/bird holds no images \(1 other"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_an_error_that_says_how_to_tell(tmp_path, names, message):
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(touch(tmp_path, *names))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("images/train/1.png", "labels/train/1.txt", "data.yaml"), r"looks like YOLO, for finding objects"),
        (("images/1.png", "labels/1.txt"), r"looks like YOLO"),
        (("train/images/1.png", "train/labels/1.txt", "valid/images/1.png", "data.yaml"), r"looks like YOLO"),
        (("images/1.png", "data.yaml"), r"by data.yaml it looks like YOLO"),
        (("images/1.png", "masks/1.png"), r"looks like image segmentation \(images, masks in"),
        (("JPEGImages/1.jpg", "Annotations/1.xml", "ImageSets/Main/a.txt"), r"looks like COCO or Pascal VOC"),
        (("train2017/1.jpg", "val2017/1.jpg", "annotations/instances_val2017.json"), r"looks like COCO"),
        (("train/1.jpg", "train/_annotations.coco.json", "valid/1.jpg"), r"_annotations.coco.json in train it"),
        (("train/1.jpg", "train/_classes.csv", "valid/1.jpg"), r"export of Roboflow .*; export it as Folder Structure"),
        (("data/train-00000-of-00001.parquet", "README.md"), r"by train-.*parquet in data .* Hugging Face"),
        (("dataset_dict.json", "train/data-0.arrow", "test/data-0.arrow"), r"dataset_dict.json it looks like a Hug"),
        (("metadata.csv", "1.png"), r"metadata.csv it looks like a Hugging Face image folder"),
        (("train/metadata.jsonl", "train/1.png"), r"metadata.jsonl in train it looks like a Hugging Face image folder"),
        (("blobs/1", "snapshots/1/a.png", "refs/main"), r"looks like a Hugging Face cache; give a folder in snapshots"),
        (("images/1.png", "labels.csv"), r"one class only \(images\).*; if labels.csv beside it holds"),
        (("1.png", "2.png", "train.csv"), r"without labels; if train.csv beside it holds .*; otherwise put each"),
        (("images_1/1.png", "images_2/2.png", "meta.csv"), r"images_1, images_2 and meta.csv: folders of images with"),
        (("ILSVRC/Data/CLS-LOC/train/n1/1.JPEG", "LOC_synset_mapping.txt"), r"ImageNet .* ILSVRC/Data/CLS-LOC/train"),
        (("Annotations/1.xml", "Data/CLS-LOC/train/n1/1.JPEG", "ImageSets/a.txt"), r"ImageNet; give its folder Data"),
        (("train/n1/images/1.JPEG", "train/n2/images/1.JPEG", "val/images/1.JPEG", "val/val_annotations.txt"),
         r"val holds images and no class folders; .* Tiny ImageNet"),
        (("photos.zip",), r"no class folders; .*; photos.zip is an archive, which is not read; unpack it first"),
        (("out/data/cat/1.png", "out/data/dog/1.png"), r"one class only \(out\); if its folders cat, dog are it, give"),
        (("data/images/cat/1.png", "data/images/dog/1.png", "labels.csv"), r"if labels.csv beside it holds"),
    ],
)  # fmt: skip
def test_the_layouts_of_other_tools_are_named_with_what_to_do(tmp_path, names, message):
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(touch(tmp_path, *names))
    assert str(caught.value).isprintable()


def test_class_folders_beside_files_of_other_tools_are_classes(tmp_path):
    dataset = open_dataset(touch(tmp_path, *parts("."), "metadata.csv", "labels.csv", "data.yaml", "photos.zip"))

    assert (dataset.labels, codes(dataset)) == (("cat", "dog"), ["archives_entries", "other_entries"])


@pytest.mark.parametrize(
    "names",
    [
        (*parts("train", "val"), "runs/1.png"),
        parts("fold1", "fold2"),
        ("train/1.png", "val/1.png"),
        ("images/1.png", "masks/1.png"),
        parts("train", "training"),
    ],
)
def test_the_operator_may_say_that_the_folders_are_classes(tmp_path, names):
    dataset = open_dataset(touch(tmp_path, *names), "classes")

    assert dataset.labels == tuple(sorted({name.partition("/")[0] for name in names}))
    assert (dataset.kind, dataset.parts_N, dataset.num_images) == ("folders", None, len(names))


def test_the_operator_may_say_that_the_folders_are_parts_and_what_is_none_is_left_out(tmp_path):
    dataset = open_dataset(touch(tmp_path, *parts("train", "val"), "runs/1.png", "runs/2.png"), "parts")

    assert (dataset.kind, dataset.num_images, dataset.num_ignored) == ("part_folders", 4, 1)
    assert dataset.findings[0].message == "1 folders beside the parts were left out, as --layout parts asks"


def test_parts_need_names_of_parts_and_a_layout_needs_a_folder(tmp_path):
    touch(tmp_path, *parts("a", "b"), "x.csv")

    with pytest.raises(DataError, match=r"holds a, b, none of which is named as a part; rename them to train, val"):
        open_dataset(tmp_path, "parts")
    with pytest.raises(DataError, match=r"x.csv: --layout classes is for folders, and this is not a folder"):
        open_dataset(tmp_path / "x.csv", "classes")
