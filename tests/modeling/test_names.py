import csv
import io
import os
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modeling.names import (
    class_name,
    csv_lines,
    is_junk,
    label_fault,
    other_unicode_form,
    path_to_text,
    text_to_path,
)

# Names with what the escape itself is made of, more often than chance would have it.
NAMES = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"\\", b"\\x", b"x", b"5c", b"ff", b"\xff", b"\xc3", b"\xa9", b"a", b"\n"])).map(
        b"".join
    ),
)


@given(NAMES)
@example(b"\\x41")
@example(b"\\x5cx41")
@example(b"\\\\xff")
@example(b"\\x4\xff")
@example("é.jpg".encode())
@example(b"\xe9.jpg")
def test_every_name_of_bytes_survives_as_utf8_text(name):
    path = os.fsdecode(name)

    text = path_to_text(path)

    assert text.encode("utf-8").decode("utf-8") == text
    assert os.fsencode(text_to_path(text)) == name


@given(NAMES, NAMES)
def test_two_names_never_become_one_text(one, other):
    assert (path_to_text(os.fsdecode(one)) == path_to_text(os.fsdecode(other))) == (one == other)


@pytest.mark.parametrize("path", ["a/b.jpg", "50 %.png", "emoji 🐦.jpg", "back\\slash", "\\xyz", "\\xAB", "line\nend"])
def test_ordinary_names_are_written_as_they_are(path):
    assert path_to_text(path) == path


def test_a_byte_that_is_no_utf8_is_written_in_hexadecimal():
    assert path_to_text(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"


def test_a_name_that_looks_like_an_escape_has_its_backslash_escaped():
    assert path_to_text(r"caf\xe9.jpg") == r"caf\x5cxe9.jpg"


def test_a_class_has_one_name_whatever_the_unicode_form_and_the_spaces_at_its_ends():
    nfc, nfd = unicodedata.normalize("NFC", "épée"), unicodedata.normalize("NFD", "épée")

    assert nfc != nfd
    assert {class_name(text) for text in (nfc, nfd, f" {nfd}\t", f"\u00a0{nfc} ")} == {nfc}
    assert class_name("two  words") == "two  words"


@pytest.mark.parametrize(
    "label", ["cat:0.999999;dog", "7", "-1", "=SUM(A1)", "a, b", "\u5e8a", "\U0001f426", "\u202fa", "שלום"]
)
def test_labels_that_can_be_seen_are_legal(label):
    assert label_fault([label, "other"]) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["a", "red\x1b[31m"],
            r"the label 'red\\x1b\[31m' holds U\+001B, which cannot be seen; rename it",
        ),
        (["a\tb"], r"U\+0009"),
        (["a\x85b"], r"U\+0085"),
        (["a\u2028b"], r"U\+2028"),
        (["\u202egod"], r"U\+202E, which cannot be seen"),
        (["a\u2066b"], r"U\+2066"),
        (["caf\udce9"], r"the label 'caf\\udce9' holds U\+DCE9, which is not text"),
        (["\ud83d"], r"U\+D83D, which is not text"),
        (["a", ""], r"label 2 is empty"),
        (["a", " "], r"label 2 is empty"),
        (["a", "b", "a"], r"the label 'a' stands there twice"),
    ],
)
def test_labels_that_cannot_be_seen_or_told_apart_are_refused_in_one_line(labels, message):
    fault = label_fault(labels)

    assert fault is not None
    assert re.search(message, fault)
    assert fault.isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir", "$RECYCLE.BIN", "lost+found", "__MACOSX", "._0001.jpg", ".DS_Store", "Thumbs.db", "#recycle",
        "#snapshot", ".ipynb_checkpoints", "System Volume Information", "desktop.ini", "@Recycle", "FOUND.000",
        "IMG.jpg@SynoEAStream", ".Trash-1000", ".nfs000000000123", "SYSTEM VOLUME INFORMATION", "Icon\r",
    ],
)  # fmt: skip
def test_names_that_systems_leave_behind_are_junk(name):
    assert is_junk(name)


@pytest.mark.parametrize(
    "name", ["cat", "found", "lost", "recycling", "thumbs", "snapshot", "tmp", ".hidden", "icon.png"]
)
def test_names_that_people_give_are_no_junk(name):
    assert not is_junk(name)


def test_a_file_of_the_same_name_in_another_unicode_form_is_found(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "épée.png")).touch()

    assert other_unicode_form(tmp_path, unicodedata.normalize("NFC", "épée.png")) == unicodedata.normalize(
        "NFD", "épée.png"
    )
    assert other_unicode_form(tmp_path, unicodedata.normalize("NFD", "épée.png")) is None
    assert other_unicode_form(tmp_path, "epee.png") is None


def test_each_folder_of_a_path_may_have_another_unicode_form(tmp_path):
    nfc, nfd = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    (tmp_path / nfc / nfd).mkdir(parents=True)
    (tmp_path / nfc / nfd / f"{nfd}.png").touch()

    assert other_unicode_form(tmp_path, f"{nfc}/{nfc}/{nfc}.png") == f"{nfc}/{nfd}/{nfd}.png"
    assert other_unicode_form("/", f"{tmp_path}/{nfd}/{nfd}/{nfd}.png") == f"{tmp_path}/{nfc}/{nfd}/{nfd}.png"
    assert other_unicode_form(tmp_path, f"{nfc}/{nfc}/{nfc}.jpg") is None


@pytest.mark.parametrize("cell", ["a\rb", "\r", "a\nb", "a\r\nb", "a\r\n", 'quo"te', "com,ma", "", "plain"])
def test_every_cell_is_read_back_as_it_was(cell):
    rows = [["before", "x"], [cell, "x"], ["after", "x"]]

    text = csv_lines(rows)

    assert list(csv.reader(io.StringIO(text, newline=""))) == rows


def test_every_line_ends_alike():
    assert csv_lines([("a", 1), ("b", 2.5)]) == "a,1\nb,2.5\n"
