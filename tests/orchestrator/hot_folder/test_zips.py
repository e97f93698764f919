"""ZIPs that anybody may have made."""

import stat
import struct
import zipfile

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.hot_folder import zips
from orchestrator.hot_folder.zips import unpack


@pytest.fixture
def target(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def make_zip(tmp_path, *members, **options):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_files_are_unpacked_with_their_folders(tmp_path, target):
    archive = make_zip(tmp_path, ("0.jpg", b"0"), ("inner/1.jpg", b"1"), ("empty/", b""))

    assert unpack(archive, target) == 2
    assert (target / "inner" / "1.jpg").read_bytes() == b"1"


@pytest.mark.parametrize(
    "name",
    ["../0.jpg", "inner/../../0.jpg", "/etc/0.jpg", "..\\0.jpg", "C:\\0.jpg", "C:0.jpg", "x" * 300, "a/" * 70 + "0"],
)
def test_paths_that_lead_out_are_refused(tmp_path, target, name):
    with pytest.raises(UsageError, match=r"leads out|too long"):
        unpack(make_zip(tmp_path, ("good.jpg", b"x"), (name, b"x")), target)

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "out"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, target, kind):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (kind | 0o777) << 16

    with pytest.raises(UsageError, match="a link or no plain file"):
        unpack(make_zip(tmp_path, (link, b"/etc/passwd")), target)


def test_a_bomb_is_refused_while_it_is_unpacked(tmp_path, target, monkeypatch):
    monkeypatch.setattr(zips, "ALWAYS_BYTES", 1 << 20)
    archive = make_zip(tmp_path, ("0.bmp", bytes(4 << 20)))

    with pytest.raises(UsageError, match="becomes too large"):
        unpack(archive, target)

    assert (target / "0.bmp").stat().st_size <= 1 << 20


def test_a_size_that_lies_does_not_count(tmp_path, target, monkeypatch):
    monkeypatch.setattr(zips, "ALWAYS_BYTES", 1 << 20)
    archive = make_zip(tmp_path, ("0.bmp", bytes(4 << 20)))
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace(struct.pack("<I", 4 << 20), struct.pack("<I", 10)))

    with pytest.raises(UsageError):
        unpack(archive, target)

    assert sum(path.stat().st_size for path in target.rglob("*")) <= 1 << 20


def test_too_many_files_are_refused(tmp_path, target, monkeypatch):
    monkeypatch.setattr(zips, "MOST_FILES", 2)

    with pytest.raises(UsageError, match="holds 3 files, 2 are allowed"):
        unpack(make_zip(tmp_path, ("0", b""), ("1", b""), ("2", b"")), target)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("0", "0"), ("a", "a/b"), ("./0", "0")])
def test_two_of_one_name_are_refused(tmp_path, target, names):
    with pytest.raises(UsageError, match="name"):
        unpack(make_zip(tmp_path, *((name, b"x") for name in names)), target)


def test_an_encrypted_one_is_refused(tmp_path, target):
    archive = make_zip(tmp_path, ("0.jpg", b"x"))
    raw = bytearray(archive.read_bytes())
    place = raw.index(b"PK\x01\x02") + 8
    raw[place] |= 1
    archive.write_bytes(bytes(raw))

    with pytest.raises(UsageError, match="encrypted"):
        unpack(archive, target)


@pytest.mark.parametrize("place", [0.1, 0.4, 0.6, 0.9])
def test_a_damaged_one_is_refused(tmp_path, target, place):
    archive = make_zip(tmp_path, ("0.jpg", bytes(range(256)) * 40))
    raw = archive.read_bytes()
    at = int(len(raw) * place)

    archive.write_bytes(raw[:at])

    with pytest.raises(UsageError, match="cannot be read"):
        unpack(archive, target)


def test_no_zip_is_refused(tmp_path, target):
    (tmp_path / "a.zip").write_bytes(b"no ZIP")

    with pytest.raises(UsageError, match="cannot be read"):
        unpack(tmp_path / "a.zip", target)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_than_deflate_are_refused(tmp_path, target, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("0.jpg", b"x" * 1000)

    with pytest.raises(UsageError, match="another method than Deflate"):
        unpack(path, target)


def test_a_list_of_files_that_fills_the_memory_is_refused(tmp_path, target):
    path = tmp_path / "a.zip"
    size = 1 << 30  # of the list, as its end says; the disk holds nothing of it
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0))

    with pytest.raises(UsageError, match="list of files is too long"):
        unpack(path, target)


def test_a_path_that_the_disk_cannot_hold_is_refused(tmp_path, target):
    with pytest.raises(UsageError, match="a name that this disk cannot hold"):
        unpack(make_zip(tmp_path, ("/".join(["x" * 200] * 30), b"x")), target)
