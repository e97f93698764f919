import gzip

import numpy as np
import pytest

from modeling.datasets import open_dataset, split_indices
from modeling.errors import DataError
from tests.modeling.data import idx_bytes, make_class_folders, make_idx


def test_a_folder_per_class_is_read_recursively_in_a_fixed_order(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a/deep/er/x.webp", "a/y.cr2", "a/.hidden/z.png", "a/notes.txt", ".git/q.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    dataset = open_dataset(tmp_path)

    assert (dataset.kind, dataset.labels, dataset.num_images) == ("folders", ("a", "b"), 4)
    assert [str(path.relative_to(tmp_path)) for path in dataset.files] == [
        "a/y.cr2",
        "a/deep/er/x.webp",
        "b/1.png",
        "b/2.JPG",
    ]
    assert dataset.targets.tolist() == [0, 0, 1, 1]
    assert dataset.num_ignored == 3  # .git, a/.hidden, a/notes.txt


@pytest.mark.parametrize(("dot", "gz"), [(False, False), (True, False), (False, True), (True, True)])
def test_idx_files_are_read_under_all_their_names(tmp_path, dot, gz):
    dataset = open_dataset(make_idx(tmp_path / "MNIST" / "raw", 6, 4, dot=dot, gz=gz).parents[1])

    assert (dataset.kind, dataset.labels, dataset.num_images) == ("idx", ("0", "1"), 10)
    assert dataset.num_train_part == 6
    assert dataset.targets.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert dataset.pixels_NHW.shape == (10, 12, 12)


def test_data_that_cannot_be_used_say_what_was_found(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "one" / "cat").mkdir(parents=True)
    make_class_folders(tmp_path / "gap", 1)
    (tmp_path / "gap" / "empty").mkdir()
    (tmp_path / "gap" / "empty" / "readme.txt").touch()
    make_class_folders(tmp_path / "parts" / "train", 1)
    (tmp_path / "parts" / "test").mkdir()

    for name, message in (
        ("absent", "absent is missing; expected a folder per class"),
        ("file", "file is not a folder"),
        ("none", "holds no class folders"),
        ("one", r"one class only \(cat\)"),
        ("gap", r"gap/empty holds no images \(1 other"),
        ("parts", "parts, not classes"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an idx file"),
        (idx_bytes(np.zeros((4, 2, 2)))[:10], "ends within its header"),
        (idx_bytes(np.zeros((4, 2, 2)))[:-1], "the file holds 15"),
        (idx_bytes(np.zeros((4, 2, 2))) + b"x", "the file holds more"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "which is not 1 to"),
        (b"\0\0\x08\x03" + bytes(12), "which is not 1 to"),
        (b"\0\0\x0d\x03" + bytes(12), "not an idx file"),
        (idx_bytes(np.zeros((3, 2, 2))), "3 images, .* 4 labels"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_idx_files_that_do_not_hold_what_they_say_are_refused(tmp_path, data, message, gz):
    make_idx(tmp_path, 4, 2, gz=gz)
    suffix = ".gz" if gz else ""
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(gzip.compress(data) if gz else data)

    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


def test_a_broken_gzip_is_a_data_error(tmp_path):
    make_idx(tmp_path, 40, 2, gz=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(tmp_path)


def test_the_split_is_seeded_stratified_and_complete():
    targets = np.repeat([0, 1], [100, 50])

    split = split_indices(targets, seed=3, validation=0.1, test=0.2)

    counts = [np.bincount(targets[part]).tolist() for part in (split.train, split.validation, split.test)]
    assert counts == [[70, 35], [10, 5], [20, 10]]
    everything = np.concatenate([split.train, split.validation, split.test])
    assert np.array_equal(np.sort(everything), np.arange(150))
    assert np.array_equal(split.test, split_indices(targets, seed=3, validation=0.1, test=0.2).test)
    assert not np.array_equal(split.test, split_indices(targets, seed=4, validation=0.1, test=0.2).test)


@pytest.mark.parametrize(
    ("count", "validation", "test", "expected"),
    [
        (1, 0.1, 0.1, (1, 0, 0)),
        (2, 0.1, 0.1, (1, 1, 0)),
        (3, 0.1, 0.1, (1, 1, 1)),
        (3, 0.0, 0.0, (3, 0, 0)),
        (10, 0.5, 0.45, (1, 5, 4)),
        (3, 0.1, 0.89, (1, 0, 2)),
    ],
)
def test_every_class_keeps_an_image_for_training(count, validation, test, expected):
    split = split_indices(np.zeros(count, dtype=np.int64), seed=0, validation=validation, test=test)

    assert (len(split.train), len(split.validation), len(split.test)) == expected
