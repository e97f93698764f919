"""Why a path fails, and what would cure it."""

import os
from pathlib import Path
from unicodedata import normalize

import pytest

from modeling.data.lists.advice import advise, common_code
from modeling.data.lists.faults import MISSING, NOT_A_FILE, OUTSIDE, PathRoot, hint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("sub/a b.png", "sub/a.png", "UP.PNG", normalize("NFD", "ö/é.png"), "é.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").touch()
    (root / "link.png").symlink_to("../blobs/1")
    (root / "gone.png").symlink_to("../blobs/2")
    return root


def advice(root: Path, *paths: str, follow: bool = False) -> str:
    checked = PathRoot(str(root), follow)
    code = common_code(checked, paths)
    assert code is not None
    return f"{code}: {advise(checked, paths, code, [], '--root {root!r}')}"


@pytest.mark.parametrize(
    ("path", "there", "because"),
    [
        ("sub\\a.png", "'sub/a.png'", "they are Windows paths"),
        ("C:\\data\\sub\\a.png", "'sub/a.png'", "they are Windows paths"),
        ("C:/data/sub/a.png", "'sub/a.png'", "they are Windows paths"),
        ("\\\\server\\share\\sub\\a.png", "'sub/a.png'", "they are Windows paths"),
        ("sub/a%20b.png", "'sub/a b.png'", "they have percent-escapes"),
        ("file:///old/sub/a%20b.png", "'sub/a b.png'", "they are file: addresses"),
        ("'sub/a.png", "'sub/a.png'", "they have the escapes of a manifest"),
        ("sub/a.png ", "'sub/a.png'", "they have spaces, quotes or separators around them"),
        ('"sub/a.png"', "'sub/a.png'", "they have spaces, quotes or separators around them"),
        ("sub/a.png,", "'sub/a.png'", "they have spaces, quotes or separators around them"),
        ("sub/a.png\tcat", "'sub/a.png'", "each line holds more than a path"),
        ("sub/a.png cat", "'sub/a.png'", "each line holds more than a path"),
        ("sub/a.png\rUP.PNG\r", "'sub/a.png'", "its lines end with CR alone"),
        ("up.png", "'UP.PNG'", "they are in another case"),
        ("sub/a", "'sub/a.png'", "they lack the extension"),
        ("other/sub/a.png", "'sub/a.png'", "they begin with folders that are not below the root"),
        ("\udce9.png", "'é.png'", "the list is not in UTF-8"),
        (normalize("NFC", "ö/é.png"), r"'o\u0308/e\u0301.png'", "the file names are in another Unicode form"),
    ],
)
def test_a_missing_path_is_explained_by_the_path_under_which_the_file_is_there(root, path, there, because):
    told = advice(root, path)

    assert told.startswith(f"missing: {because}")
    assert f"is there as {there})" in told


@pytest.mark.parametrize("path", ["https://x.org/a.png", "s3://bucket/a.png"])
def test_addresses_are_to_be_downloaded(root, path):
    assert "they are addresses" in advice(root, path)
    assert "download the images" in advice(root, path)


def test_windows_paths_are_named_also_where_no_file_is_found(root):
    assert advice(root, "D:\\x\\y.png").startswith("missing: they are Windows paths (such as 'D:")


def test_links_that_lead_out_of_the_root_are_cured_by_the_flag_that_follows_them(root):
    assert advice(root, "link.png") == (
        "outside_root: they are links that lead out of the source folder ('link.png' leads to '../blobs/1'); "
        "read them with --follow-symlinks"
    )
    assert common_code(PathRoot(str(root), follow=True), ["link.png"]) is None


@pytest.mark.parametrize(("follow", "code"), [(False, OUTSIDE), (True, MISSING)])
def test_links_to_files_that_are_not_there_are_to_be_fetched(root, follow, code):
    told = advice(root, "gone.png", follow=follow)

    assert told.startswith(
        f"{code}: they are links to files that are not there ('gone.png' leads to '../blobs/2'); fetch"
    )


def test_a_wrong_root_is_answered_with_one_that_works(root, tmp_path):
    assert f"--root {str(root / 'sub')!r}" in advice(root, "a.png", "a b.png")
    assert f"--root {str(tmp_path)!r}" in advice(root / "sub", "root/sub/a.png", "root/UP.PNG")
    absolute = [str(root / "sub" / "a.png"), str(root / "UP.PNG")]
    assert f"--root {str(root)!r}" in advice(tmp_path / "blobs", *absolute)
    assert f"--root {str(root)!r}" in advice(tmp_path / "blobs", *absolute, follow=True)


def test_paths_that_lead_out_by_two_dots_are_to_be_written_without(root):
    told = advice(root, "../blobs/1")

    assert told.startswith(
        "outside_root: they lead out of the root folder (such as '../blobs/1'); write them without .."
    )


def test_files_that_are_nowhere_are_missing_and_folders_are_no_files(root):
    assert advice(root, "nowhere.png") == (
        f"missing: there are no such files (such as 'nowhere.png'); they are looked for below {str(root)!r}"
    )
    assert advice(root, "sub").startswith(f"{NOT_A_FILE}: they are folders")


def test_names_that_no_file_can_have_are_missing(root):
    for path in ("nul\0.png", "x" * 300 + ".png", "\ud800.png"):
        assert advice(root, path).startswith("missing: there are no such files")


def test_there_is_no_common_reason_where_one_path_is_well_or_fails_otherwise(root):
    checked = PathRoot(str(root), follow=False)

    assert common_code(checked, ["nowhere.png", "UP.PNG"]) is None
    assert common_code(checked, ["nowhere.png", "link.png"]) is None
    assert common_code(checked, []) is None


def test_what_most_paths_suggest_is_told(root):
    assert "they are Windows paths" in advice(root, "x.png", "sub\\a.png", "sub\\a b.png")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (normalize("NFC", "ö/é.png"), "; one is there in another Unicode form (NFC or NFD)"),
        ("sub\\a.png", "; one is there with slashes for Windows' backslashes"),
        ("sub/a%20b.png", "; one is there without percent-escapes"),
        ("https://x.org/a.png", "; this is an address, not a path"),
        ("up.png", ""),
        ("..\\blobs\\1", "; this is a Windows path"),
        ("%2e%2e/blobs/1", ""),
        ("nowhere.png", ""),
    ],
)
def test_the_row_of_a_missing_file_says_what_its_path_suggests_and_nothing_of_files_outside(root, path, told):
    assert hint(str(root), path) == told


def test_a_hint_looks_at_no_file_for_an_ordinary_name(root, monkeypatch):
    monkeypatch.setattr(os, "stat", None)

    assert hint(str(root), "sub/0001.png") == ""
