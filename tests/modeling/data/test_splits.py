import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.data.dataset import FREE, TEST, TRAIN, VALIDATION, Dataset
from modeling.data.duplicates import find_duplicates, group_numbers
from modeling.data.facts import ImageFacts
from modeling.data.forms.open import open_dataset
from modeling.data.report import DataReport
from modeling.data.scan import scan_dataset
from modeling.data.splits import SplitRow, read_split, split_dataset, write_split
from modeling.errors import DataError
from tests.support.pictures import photo_png, write_files

FACTS = ImageFacts((4, 4), "L", "PNG", 1, (), True, b"")


def scanned(
    targets: Sequence[int], *, contents: Sequence[int] | None = None, parts: Sequence[int] | None = None, bad=()
) -> tuple[Dataset, DataReport]:
    """A data set of which only the targets are given, and what each image holds: equal numbers, equal bytes."""
    count = len(targets)
    dataset = Dataset(
        kind="folders",
        path=Path("/data"),
        labels=tuple("abcdef"[: max(targets) + 1]),
        targets_N=np.array(targets, dtype=np.int64),
        files=tuple(Path(f"/data/{index}.png") for index in range(count)),
        parts_N=None if parts is None else np.array(parts, dtype=np.int8),
    )
    held = range(count) if contents is None else contents
    digests = tuple(hashlib.sha256(str(number).encode()).hexdigest() for number in held)
    facts = tuple(None if index in bad else FACTS for index in range(count))
    duplicates = find_duplicates(digests, facts).duplicates
    errors = dict.fromkeys(bad, ("corrupt", "it is"))
    return dataset, DataReport(dataset, digests, facts, errors, duplicates, group_numbers(count, duplicates))


def split_of(*args, seed=0, validation=0.1, test=0.1, **options):
    return split_dataset(*scanned(*args, **options), seed=seed, validation=validation, test=test)


def parts_of(split):
    return tuple(part.tolist() for part in (split.train, split.validation, split.test))


def sides_of(contents, parts):
    """In how many parts each content is."""
    return Counter(content for part in parts for content in {contents[index] for index in part})


def test_the_split_is_seeded_stratified_and_complete():
    targets = np.repeat([0, 1], [100, 50])

    split = split_of(targets, seed=3, test=0.2)

    counts = [np.bincount(targets[part]).tolist() for part in (split.train, split.validation, split.test)]
    assert counts == [[70, 35], [10, 5], [20, 10]]
    everything = np.concatenate([split.train, split.validation, split.test])
    assert np.array_equal(np.sort(everything), np.arange(150))
    assert all(np.array_equal(part, np.sort(part)) for part in (split.train, split.validation, split.test))
    assert parts_of(split) == parts_of(split_of(targets, seed=3, test=0.2))
    assert parts_of(split) != parts_of(split_of(targets, seed=4, test=0.2))


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
    split = split_of([0] * count, validation=validation, test=test)

    assert tuple(map(len, parts_of(split))) == expected


def test_the_split_depends_on_what_the_images_hold_and_not_on_their_order():
    order = np.random.default_rng(1).permutation(60)
    targets = np.arange(60) % 3

    straight = split_of(targets, contents=list(range(60)))
    shuffled = split_of(targets[order], contents=order.tolist())

    for ours, theirs in zip(parts_of(straight), parts_of(shuffled), strict=True):
        assert ours == sorted(order[theirs].tolist())


def test_duplicates_stay_on_one_side():
    contents = [number // 3 for number in range(90)]

    split = split_of([number // 45 for number in range(90)], contents=contents, validation=0.2, test=0.2)

    assert [len(part) for part in parts_of(split)] == [54, 18, 18]
    assert sides_of(contents, parts_of(split)) == dict.fromkeys(contents, 1)


def test_a_part_takes_a_set_of_duplicates_that_is_larger_than_its_share_rather_than_nothing():
    split = split_of([0] * 15, contents=[number // 5 for number in range(15)])

    assert tuple(map(len, parts_of(split))) == (5, 5, 5)


def test_unreadable_images_are_in_no_part():
    split = split_of([0] * 10 + [1] * 10, bad=(3, 15))

    assert split.unreadable.tolist() == [3, 15]
    assert sorted(chain(*parts_of(split))) == [index for index in range(20) if index not in (3, 15)]


def test_a_share_is_the_decimal_fraction_that_was_written():
    split = split_of([0] * 150 + [1] * 150, validation=0.07, test=0.0)  # 10.5 of each; in floats a little more

    assert len(split.validation) == 20


def test_official_parts_are_kept_and_validation_is_taken_from_training():
    parts = [TRAIN] * 20 + [TEST] * 10

    split = split_of([0, 1] * 15, parts=parts, test=0.5)

    assert split.test.tolist() == list(range(20, 30))
    assert len(split.validation) == 2
    assert sorted([*split.train, *split.validation]) == list(range(20))


def test_an_official_validation_part_is_kept_and_no_test_part_is_made():
    split = split_of([0, 1] * 15, parts=[TRAIN] * 20 + [VALIDATION] * 10)

    assert parts_of(split) == (list(range(20)), list(range(20, 30)), [])


def test_images_of_no_part_may_train_beside_official_ones():
    split = split_of([0, 1] * 15, parts=[FREE] * 10 + [VALIDATION] * 10 + [TEST] * 10)

    assert parts_of(split) == (list(range(10)), list(range(10, 20)), list(range(20, 30)))


def test_duplicates_of_official_images_are_left_out_of_what_is_measured_by_them():
    contents = [*range(8), *range(8, 10), 0, *range(11, 13), 1, 8, 20]
    parts = [TRAIN] * 8 + [VALIDATION] * 4 + [TEST] * 4
    contents[11] = 2  # the validation part holds a training image, too

    split = split_of([0, 1] * 8, contents=contents, parts=parts)

    assert split.leaked.tolist() == [0, 1, 2, 8]
    assert parts_of(split) == ([3, 4, 5, 6, 7], [9, 10, 11], [12, 13, 14, 15])


def test_a_class_whose_images_are_all_doubled_in_another_class_still_trains():
    targets = [0] * 30 + [1] * 2
    contents = [*range(30), 4, 7]

    for seed in range(20):
        split = split_of(targets, contents=contents, seed=seed, validation=0.4, test=0.4)
        assert set(np.array(targets)[split.train].tolist()) == {0, 1}


def test_data_that_cannot_be_trained_on_are_not_split(tmp_path):
    write_files(tmp_path, {"a/1.png": b"x", "b/1.png": b"y"})
    dataset = open_dataset(tmp_path)
    report = scan_dataset(dataset, lambda event: None, None)

    with pytest.raises(DataError, match="none of the 2 images"):
        split_dataset(dataset, report, seed=0, validation=0.1, test=0.1)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.integers(0, 5),
)
def test_whatever_the_data_the_parts_are_disjoint_whole_and_grouped(images, validation, test, seed):
    targets, contents = [target for target, _ in images], [content for _, content in images]

    split = split_of(targets, contents=contents, seed=seed, validation=validation, test=test)

    parts = parts_of(split)
    assert sorted(chain(*parts)) == list(range(len(images)))
    assert sides_of(contents, parts) == dict.fromkeys(contents, 1)
    assert {targets[index] for index in parts[0]} == set(targets)


def test_a_split_is_saved_with_what_tells_its_images_again(tmp_path):
    files = {"=a/0.png": photo_png(1), "=a/1.png": photo_png(2), "=a/caf\udce9.png": b"bad"}
    files |= {"b/0.png": photo_png(3), "b/1.png": photo_png(4), "b/2.png": photo_png(3)}
    dataset = open_dataset(write_files(tmp_path / "data", files))
    report = scan_dataset(dataset, lambda event: None, None)
    split = split_dataset(dataset, report, seed=0, validation=0.2, test=0.0)

    write_split(tmp_path / "split.csv", dataset, report, split)

    names = {0: "train", 1: "validation"}
    part_of = {index: names[number] for number, part in enumerate(parts_of(split)[:2]) for index in part}
    expected = [
        SplitRow(
            name.replace("\udce9", "\\xe9"), name.partition("/")[0], part_of.get(index, "unreadable"), digest, group
        )
        for index, (name, digest, group) in enumerate(
            zip(files, (hashlib.sha256(data).hexdigest() for data in files.values()), (0, 1, 2, 3, 4, 3), strict=True)
        )
    ]
    assert read_split(tmp_path / "split.csv") == expected
    assert (tmp_path / "split.csv").read_text().splitlines()[1].startswith("'=a/0.png,'=a,")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("a,b\n", "its columns are a, b"),
        ("name,label,part,sha256,group\nx,y\n", "a row of 2 cells"),
        ("name,label,part,sha256,group\nx,y,train,00,first\n", "cannot be read"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)

    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(tmp_path / "absent.csv")
