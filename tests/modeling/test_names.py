import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modeling.names import path_to_text, text_to_path

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
