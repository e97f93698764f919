"""Paths of a list relative to its root, whatever names lead there."""

import os
from pathlib import Path

import pytest

from modeling.errors import ImageError
from orchestrator.contract.jobs.sidecar import line_start
from orchestrator.jobs.below_root import BelowRoot, file_below
from orchestrator.jobs.merging.changed import prefix_of, start_now
from orchestrator.jobs.row_images import image_file
from orchestrator.jobs.sources import open_source
from orchestrator.jobs.walk import SourceOptions
from workers.classify.read import ImageReader


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`data`, a link to `disk/x`, as is `alias`; inside it a link to a folder inside, and one to a folder outside."""
    (tmp_path / "disk" / "x" / "sub").mkdir(parents=True)
    (tmp_path / "disk" / "xy").mkdir()
    for name in ("x/a.jpg", "x/sub/b.jpg", "x/a..b.jpg", "xy/secret.jpg", "a.jpg"):
        (tmp_path / "disk" / name).write_text(name, encoding="utf-8")
    (tmp_path / "disk" / "x" / "inside").symlink_to("sub")
    (tmp_path / "disk" / "x" / "outside").symlink_to("../xy")
    for link in ("data", "alias"):
        (tmp_path / link).symlink_to("disk/x")
    return tmp_path / "data"


BELOW = [
    ("{0}/data/a.jpg", "a.jpg"),
    ("{0}/data//a.jpg", "a.jpg"),
    ("{0}/data/.//./a.jpg", "a.jpg"),
    ("{0}//data/a.jpg", "a.jpg"),
    ("/{0}/data/a.jpg", "a.jpg"),
    ("{0}/./data/sub//b.jpg", "sub/b.jpg"),
    ("{0}/disk/../data/a.jpg", "a.jpg"),
    ("{0}/disk/x/a.jpg", "a.jpg"),
    ("{0}/disk/x//sub/b.jpg", "sub/b.jpg"),
    ("{0}/disk/x/inside/b.jpg", "inside/b.jpg"),
    ("{0}/data/inside/b.jpg", "inside/b.jpg"),
    ("{0}/alias/a.jpg", "a.jpg"),
    ("{0}/alias/inside/b.jpg", "sub/b.jpg"),
    ("{0}/alias/sub/../a.jpg", "a.jpg"),
    ("{0}/data/sub/../a.jpg", "a.jpg"),
    ("sub/../a.jpg", "a.jpg"),
    ("../x/sub/b.jpg", "sub/b.jpg"),
    ("./a.jpg", "./a.jpg"),
    ("inside/b.jpg", "inside/b.jpg"),
    ("a..b.jpg", "a..b.jpg"),
]
STAY = ["{0}/disk/xy/secret.jpg", "{0}/disk/a.jpg", "/etc/passwd", "../a.jpg", "../xy/secret.jpg", "nowhere/../a.jpg"]


@pytest.mark.parametrize(("written", "listed"), BELOW)
@pytest.mark.parametrize("follow", [False, True])
def test_a_path_below_the_root_is_listed_as_workers_and_later_commands_find_it(root, written, listed, follow):
    written = written.format(root.parent)
    reader = ImageReader(str(root), follow_symlinks=follow, max_file_bytes=100)

    path = BelowRoot(str(root)).relative(written)

    assert path == listed
    there = (root / written).read_bytes()
    assert reader.read(path) == image_file(str(root), path).read_bytes() == there
    assert Path(file_below(f"{root}/", path)).read_bytes() == there


@pytest.mark.parametrize("written", STAY)
def test_a_path_outside_of_the_root_stays_as_it_is_written(root, written):
    written = written.format(root.parent)

    assert BelowRoot(str(root)).relative(written) == written


@pytest.mark.parametrize("written", ["{0}/data", "{0}/data/", "{0}/data//", "{0}/data/./", "{0}/disk/x/", "{0}/alias/"])
def test_the_root_itself_has_a_path(root, written):
    assert BelowRoot(str(root)).relative(written.format(root.parent)) in (".", str(root))


def test_a_missing_file_below_the_root_is_relative_too_so_that_it_may_come_later(root):
    below = BelowRoot(str(root))

    assert below.relative(f"{root.parent}/alias/later/c.jpg") == "later/c.jpg"
    assert below.relative(f"{root.parent}/alias/nowhere/../a.jpg") == f"{root.parent}/alias/nowhere/../a.jpg"


@pytest.mark.parametrize("name", ["nul\0/a.jpg", "\ud800/a.jpg", os.fsdecode(b"caf\xe9/a.jpg")])
def test_names_that_no_file_can_have_stay(root, name):
    below = BelowRoot(str(root))

    assert below.relative(f"/{name}") == f"/{name}"
    assert below.relative(f"{root}//{name}") == name


def test_below_the_root_of_the_system_every_path_is_relative():
    assert BelowRoot("/").relative("//etc/hostname") == "etc/hostname"


@pytest.mark.parametrize("path", ["sub/../a.jpg", "../x/a.jpg", "{0}/disk/x/a.jpg", "{0}/alias/a.jpg"])
def test_an_image_of_an_earlier_manifest_is_opened_where_a_worker_would_read_it(root, path):
    assert image_file(str(root), path.format(root.parent)).read_text(encoding="utf-8") == "x/a.jpg"


@pytest.mark.parametrize(
    "path", ["../a.jpg", "../xy/secret.jpg", "/etc/passwd", "{0}/disk/a.jpg", "nul\0.jpg", "/\ud800/a"]
)
def test_a_path_that_no_worker_reads_is_not_opened(root, path):
    with pytest.raises(ImageError) as failed:
        image_file(str(root), path.format(root.parent))
    assert failed.value.code == "outside_root"


def test_an_unchanged_image_of_an_earlier_listing_is_seen_to_be_unchanged(root):
    path = os.path.realpath(root / "a.jpg")
    facts = Path(path).stat()

    assert start_now(prefix_of(str(root)), path) == line_start(path, facts.st_size, facts.st_mtime_ns)


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "-"])
def test_a_list_of_real_paths_names_the_images_of_a_root_behind_a_link(root, name, tmp_path):
    lines = ["path"] * (name == "list.csv") + [os.path.realpath(root / "a.jpg"), f"{root}//sub/b.jpg"]
    file = tmp_path / "list"
    file.write_text("\n".join(lines), encoding="utf-8")
    if name != "-":
        file = file.rename(tmp_path / name)

    with file.open("rb") as stdin:
        source = open_source("-" if name == "-" else str(file), SourceOptions(root=root), stdin=stdin)
        paths = list(source.paths)

    assert (source.root, paths) == (str(root), ["a.jpg", "sub/b.jpg"])
