"""Folders and files get names that every file system holds, readable and distinct."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sorting.names import FolderNames, file_names, fold, is_harmless, is_of_errors, portable

ANY_LABEL = st.text(max_size=300)
ODD_LABELS = ["", ".", "..", "...", "/", "a/b", "CON", "con.jpg", "lpt¹", "x:y", "end.", "end ", ".hidden", "l" * 300]


def refuses_colons(name: str) -> bool:
    return ":" not in name


@pytest.mark.parametrize("label", ["cat", "Great tit", "7", "Kohlmeise (m)", "é", "鳥", "a~b", "x.y"])
def test_a_label_that_can_be_a_folders_name_is_that_name(label):
    assert FolderNames([label]).of(label) == label


@pytest.mark.parametrize("label", [*ODD_LABELS, "lost+found", "@tmp", "_errors", "_Errors", "e\u0301", "\u202egnp"])
def test_any_other_label_gets_a_digest_behind_what_is_left_of_it(label):
    name = FolderNames([label]).of(label)

    assert name.startswith(f"{portable(label)}~")
    assert name == FolderNames(["other", label]).of(label)


@given(st.lists(ANY_LABEL, unique=True, max_size=8))
def test_labels_get_names_that_differ_also_where_case_and_forms_of_unicode_do_not_count(labels):
    names = [FolderNames(labels).of(label) for label in labels]

    assert len({fold(name) for name in names}) == len(labels)
    assert names == [FolderNames(reversed(labels)).of(label) for label in labels]


@given(ANY_LABEL)
def test_a_portable_name_is_one_that_windows_holds(label):
    name = portable(label)

    assert name == portable(name)
    assert 0 < len(name.encode()) <= 101
    assert not set(name) & set('<>:"/\\|?*\0\n')
    assert name == unicodedata.normalize("NFC", name)
    assert not name.startswith(".")
    assert name.rstrip(". ") == name
    assert name.upper() not in ("CON", "NUL", "COM1")


def test_labels_equal_under_case_folding_keep_the_first_ones_name():
    names = FolderNames(["cat", "CAT", "Cat"])

    assert names.of("CAT") == "CAT"
    assert names.of("cat").startswith("cat~")
    assert names.of("Cat").startswith("Cat~")


def test_the_names_of_a_file_are_its_own_and_then_with_a_digest_of_its_path():
    first, second, third, *_ = file_names("march/1.jpg", lambda name: True)

    assert first == "1.jpg"
    assert second.startswith("1~")
    assert second.endswith(".jpg")
    assert len(third) == len(second) + 8
    assert second not in list(file_names("april/1.jpg", lambda name: True))


@pytest.mark.parametrize("name", ["n" * 255, "n" * 250 + ".jpeg", "é" * 120 + ".jpg", os.fsdecode(b"\xe9" * 255)])
def test_no_name_of_a_file_is_longer_than_255_bytes_and_no_character_is_divided(name):
    for found in file_names(name, lambda name: True):
        assert len(os.fsencode(found)) <= 255
        assert ("\udcc3" in found) is ("\udcc3" in name)


@pytest.mark.parametrize(
    ("name", "beginning", "end"), [("a:b.jpg", "a_b~", ".jpg"), ("ab.j:g", "image~", ""), (":" * 255, "_" * 100, "")]
)
def test_a_file_gets_a_name_that_the_target_holds(name, beginning, end):
    names = list(file_names(f"x/{name}", refuses_colons))

    assert all(found.startswith(beginning) and found.endswith(end) and ":" not in found for found in names)


def test_a_label_whose_folder_cannot_be_had_gets_another_name_and_keeps_it():
    names = FolderNames(["é", "cat"])

    other = next(names.others("é", str.isascii))

    assert other.startswith("label~")
    assert names.of("é") == other


@pytest.mark.parametrize(
    ("name", "expected"), [("0001.jpg", True), ("a b.jpg", True), ("CON", False), ("é.jpg", False)]
)
def test_only_plain_names_need_not_be_tried(name, expected):
    assert is_harmless(name) is expected


@pytest.mark.parametrize(
    ("path", "errors"),
    [
        ("_errors/truncated/a.jpg", True),
        ("_errors~2/truncated/a.jpg", True),
        ("_errors~f3a1b2c4/a.jpg", False),
        ("_errors of mine/a.jpg", False),
    ],
)
def test_a_label_that_looks_like_the_folder_of_errors_is_an_answer(path, errors):
    assert is_of_errors(path) is errors
