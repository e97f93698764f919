"""Where what a command makes of a manifest may be written."""

from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.jobs.derived_outputs import check_derived_file, check_derived_folder
from orchestrator.jobs.results import Published, read_summary
from tests.support.manifests import answered, publish_rows


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The present folder, with the images `in/a.jpg` and `in/odd.json`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "odd.json"):
        (tmp_path / "in" / name).write_text("an image")
    return tmp_path


def published(source: str, root: Path, *paths: str, walked: bool = False) -> Published:
    manifest = publish_rows(Path("out.csv").absolute(), [answered(path, "cat") for path in paths], root, source=source)
    summary = read_summary(summary_path(manifest))
    return Published(manifest, summary | {"listing": summary["listing"] | {"walked": walked}})


def of_folder(here: Path) -> Published:
    return published("in", here / "in", "a.jpg", "odd.json", walked=True)


def of_list(here: Path) -> Published:
    return published("-", here, "in/a.jpg", "in/odd.json")


def of_absolute_paths(here: Path) -> Published:
    inner = str(here / "in").removeprefix("/")
    return published("list.txt", Path("/"), f"{inner}/a.jpg", f"{inner}/odd.json")


def of_glob_of_disks(here: Path) -> Published:
    return published("/disk*/*.jpg", Path("/"), "disk1/a.jpg", walked=True)


@pytest.mark.parametrize("make", [of_list, of_absolute_paths, of_glob_of_disks])
def test_the_root_of_a_list_or_of_several_disks_is_not_the_source(here, make):
    for output in (Path("sheet.html"), here / "in" / "sheet.html"):
        check_derived_file(output, make(here), overwrite=False)
    check_derived_folder(Path("exported"), make(here))


def test_nothing_is_written_into_a_folder_that_is_the_source(here):
    (here / "linked").symlink_to("in")

    for output in ("in/sheet.html", "linked/sheet.html", "in/a.jpg"):
        with pytest.raises(UsageError, match="is inside the source, which is never written to"):
            check_derived_file(Path(output), of_folder(here), overwrite=True)
    with pytest.raises(UsageError, match="is inside the source, which is never written to"):
        check_derived_folder(Path("in/exported"), of_folder(here))


@pytest.mark.parametrize("make", [of_list, of_absolute_paths])
@pytest.mark.parametrize("output", ["in/a.jpg", "in/odd.json", "link.json"])
def test_an_image_is_not_replaced_though_its_folder_is_not_the_source(here, make, output):
    (here / "link.json").symlink_to("in/a.jpg")

    with pytest.raises(UsageError, match="would replace an image; name another"):
        check_derived_file(Path(output), make(here), overwrite=True)


def test_another_file_beside_the_images_of_a_list_is_replaced_where_asked(here):
    (here / "in" / "sheet.html").write_text("an earlier one")

    check_derived_file(Path("in/sheet.html"), of_list(here), overwrite=True)

    with pytest.raises(UsageError, match="exists; name another, or replace it with --overwrite"):
        check_derived_file(Path("in/sheet.html"), of_list(here), overwrite=False)
