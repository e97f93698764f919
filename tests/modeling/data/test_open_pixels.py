"""Data sets whose files hold pixels: MNIST's idx, CIFAR-10's binary version."""

import gzip
import pickle

import numpy as np
import pytest

from modeling.data.dataset import TEST, TRAIN
from modeling.data.forms.cifar10 import RECORD_BYTES
from modeling.data.forms.open import open_dataset
from modeling.errors import DataError
from tests.support.images import idx_bytes, make_idx

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(("dot", "gz"), [(False, False), (True, False), (False, True), (True, True)])
def test_idx_files_are_read_under_all_their_names(tmp_path, dot, gz):
    dataset = open_dataset(make_idx(tmp_path / "MNIST" / "raw", 6, 4, dot=dot, gz=gz).parents[1])

    assert (dataset.kind, dataset.labels, dataset.num_images) == ("idx", ("0", "1"), 10)
    assert dataset.parts_N.tolist() == [TRAIN] * 6 + [TEST] * 4
    assert dataset.targets_N.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert dataset.pixels_NHWC.shape == (10, 12, 12, 1)
    assert [dataset.name(index) for index in (0, 5, 6, 9)] == ["train/0", "train/5", "test/0", "test/3"]


def test_idx_files_of_a_single_part_have_no_official_parts(tmp_path):
    make_idx(tmp_path, 6, 4)
    (tmp_path / "train-images-idx3-ubyte").unlink()

    dataset = open_dataset(tmp_path)

    assert (dataset.num_images, dataset.parts_N, dataset.name(3)) == (4, None, "image/3")


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
        (idx_bytes(np.zeros((4, 2, 2))), r"training images are \(2, 2\), test images \(12, 12\)"),
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


def cifar10_record(label: int, red: int, green: int, blue: int, first_row: int) -> bytes:
    """A record of one colour whose first row of red is another."""
    plane = 32 * 32
    return bytes([label]) + bytes([first_row] * 32 + [red] * (plane - 32) + [green] * plane + [blue] * plane)


def make_cifar10(root, *, meta: bool = True):
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 6):
        records = cifar10_record(number % 2, number, 20, 30, 9) + cifar10_record(3, number, 20, 30, 9)
        (root / f"data_batch_{number}.bin").write_bytes(records)
    (root / "test_batch.bin").write_bytes(cifar10_record(3, 1, 2, 3, 4))
    if meta:
        (root / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return root


def test_cifar10_is_read_from_its_binary_files(tmp_path):
    make_cifar10(tmp_path / "cifar-10-batches-bin")

    dataset = open_dataset(tmp_path)

    assert (dataset.kind, dataset.labels) == ("cifar10", ("airplane", "automobile", "cat"))
    assert dataset.targets_N.tolist() == [1, 2, 0, 2, 1, 2, 0, 2, 1, 2, 2]
    assert dataset.parts_N.tolist() == [TRAIN] * 10 + [TEST]
    assert dataset.pixels_NHWC.shape == (11, 32, 32, 3)
    assert dataset.pixels_NHWC[2, 0, 31].tolist() == [9, 20, 30]
    assert dataset.pixels_NHWC[2, 1, 0].tolist() == [2, 20, 30]
    assert dataset.name(10) == "test/0"


def test_cifar10_without_names_or_batches_says_so(tmp_path):
    make_cifar10(tmp_path, meta=False)
    (tmp_path / "data_batch_4.bin").unlink()
    (tmp_path / "test_batch.bin").unlink()

    dataset = open_dataset(tmp_path)

    assert (dataset.labels, dataset.num_images, dataset.parts_N) == (("0", "1", "3"), 8, None)
    assert [(finding.severity, finding.code) for finding in dataset.findings] == [("warning", "missing_files")]
    assert "data_batch_4.bin of" in dataset.findings[0].message


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("data_batch_2.bin", bytes(RECORD_BYTES - 1), "3072 bytes are not records of 3073"),
        ("data_batch_2.bin", b"", "0 bytes are not records"),
        ("test_batch.bin", cifar10_record(10, 0, 0, 0, 0), "a label is 10, and CIFAR-10's are 0 to 9"),
        ("batches.meta.txt", b"cat\ndog\n", "names 2 classes, and CIFAR-10 has 10"),
        ("batches.meta.txt", b"\xff\n" * 10, "not UTF-8"),
    ],
)
def test_cifar10_files_that_are_not_what_they_should_be_are_refused(tmp_path, file, data, message):
    (make_cifar10(tmp_path) / file).write_bytes(data)

    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_cifar10_pickles_are_never_read(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(DataError, match=r"Python pickles, which are never read.*give the binary version"):
        open_dataset(tmp_path)
