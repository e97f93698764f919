"""`pigeonhole results sheet`."""

import base64
import html
import io
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from orchestrator.cli.outputs import written_output
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import Row
from tests.support.images import encode
from tests.support.invoke import invoke
from tests.support.manifests import answered, failed, publish_rows
from tests.support.report_contents import EVIL


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder; images lie in `in`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.fixture
def manifest(folder: Path) -> Callable[..., str]:
    """Writes a manifest `out.csv` of rows; every image of a row that is `ok` is there, but for those named as gone."""

    def manifest(*rows: Row, gone: tuple[str, ...] = (), name: str = "out.csv", **changes: object) -> str:
        for number, row in enumerate(rows):
            if row.prediction.ok and row.path not in gone:
                (folder / "in" / row.path).parent.mkdir(exist_ok=True)
                (folder / "in" / row.path).write_bytes(encode(Image.new("RGB", (100, 50), (number * 20, 0, 0)), "JPEG"))
        return str(publish_rows(folder / name, rows, folder / "in", **changes))

    return manifest


def write(*arguments: str) -> Result:
    return invoke("results", "sheet", *arguments)


def body_of(page: Path) -> str:
    text = page.read_text()
    assert "<script" not in text
    return text[text.index("<body>") :]


def attributes_of(page: Path) -> set[str]:
    """The attributes of all tags of the body, as a browser reads them."""
    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update(name for name, _ in attrs)

    Reader().feed(body_of(page))
    return found


def texts(page: Path) -> str:
    """What the page says, without tags, its spaces folded."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body_of(page))).split())


def test_a_sheet_shows_each_image_with_its_answer(manifest, folder):
    job = manifest(
        answered("a.jpg", "cat", score=0.75, decision="accept"),
        answered("b/c.jpg", "dog", score=0.5, decision="review"),
        failed("x.jpg"),
    )

    done = write(job, "-o", "sheet.html")

    assert done.exit_code == 0
    assert re.fullmatch(r"sheet\.html: 3 images, [\d.]+ kB\n", done.stdout)
    assert done.stderr == "1 without a picture: truncated\n"
    assert texts(folder / "sheet.html").endswith(
        "cat 0.7500 accept a.jpg dog 0.5000 review b/c.jpg truncated pixels are missing truncated x.jpg"
    )
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', (folder / "sheet.html").read_text())
    assert [alt for _, alt in found] == ["a.jpg", "b/c.jpg"]
    assert [Image.open(io.BytesIO(base64.b64decode(data))).size for data, _ in found] == [(100, 50)] * 2


def test_a_filter_and_groups(manifest, folder):
    rows = [answered(f"{number}.jpg", "cat" if number % 3 else "dog", score=number / 10) for number in range(10)]

    done = write(manifest(*rows), "-o", "sheet.html", "--where", "score<0.8", "--by", "label", "--limit", "4", "--json")

    facts = json.loads(done.stdout)
    assert {name: facts[name] for name in ("num_shown", "num_fitting", "groups", "without_picture")} == {
        "num_shown": 4,
        "num_fitting": 8,
        "groups": {"cat": 5, "dog": 3},
        "without_picture": {},
    }
    said = texts(folder / "sheet.html")
    assert "Filter score<0.8 Shown the first 4 of 8 images" in said
    assert "cat the first 2 of 5 images cat 0.1000 1.jpg cat 0.2000 2.jpg" in said
    assert "dog the first 2 of 3 images dog 0.0000 0.jpg dog 0.3000 3.jpg" in said


def test_hostile_names_and_labels_are_text(manifest, folder):
    odd = ["<b>&amp;'\".jpg", "\u202egpj.exe.jpg", "line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "\x1b[31m.jpg"]
    rows = [answered(name, EVIL) for name in odd]

    write(manifest(*rows, failed(f"{EVIL}.jpg", EVIL, EVIL), source=EVIL), "-o", "sheet.html", "--by", "label")

    page = folder / "sheet.html"
    allowed = {"class", "href", "id", "tabindex", "aria-label", "aria-labelledby", "src", "alt", "width", "height",
        "loading", "decoding"}  # fmt: skip
    assert attributes_of(page) <= allowed
    assert not re.search("[\u202e\x1b]", page.read_text())
    for shown in ("<b>&amp;'\".jpg", r"\u202egpj.exe.jpg", r"line\nend.jpg", r"caf\xe9.jpg", r"\x1b[31m.jpg", EVIL):
        assert " ".join(shown.split()) in texts(page)


def test_the_page_names_nothing_elsewhere_and_its_policy_allows_nothing(manifest, folder):
    write(manifest(answered("a.jpg", "http://example.com/x.png")), "-o", "sheet.html")

    text = (folder / "sheet.html").read_text()
    addresses = re.findall(r'\s(?:src|href)="([^"]*)"', text)
    assert {address.partition(":")[0] for address in addresses} == {"data", "#pictures"}
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#39;none&#39;; img-src data:;" in text


def test_no_row_that_fits_gives_a_page_that_says_so(manifest, folder):
    done = write(manifest(answered("a.jpg", "cat")), "-o", "sheet.html", "--where", "label=cow")

    assert done.exit_code == 0
    assert done.stderr == "no row fits, and the sheet is empty\n"
    assert texts(folder / "sheet.html").endswith("No picture: no row fits.")


def test_images_that_are_gone_have_their_reason_and_keep_their_answers(manifest, folder):
    job = manifest(answered("a.jpg", "cat"), answered("b.jpg", "dog"), answered("../c.jpg", "cow"), gone=("b.jpg",))

    done = write(job, "-o", "sheet.html")

    assert done.exit_code == 0
    assert done.stderr == "1 without a picture: missing\n1 without a picture: outside_root\n"
    assert "missing No such file or directory dog 0.7500 b.jpg" in texts(folder / "sheet.html")


def test_a_manifest_changed_by_hand_is_shown_with_a_warning(manifest, folder):
    job = manifest(answered("a.jpg", "cat"), answered("b.jpg", "dog"))
    Path(job).write_bytes(Path(job).read_bytes().replace(b"dog", b"cow"))

    done = write(job, "-o", "sheet.html")

    assert done.exit_code == 0
    assert f"{job} was changed since its job wrote it; `pigeonhole results verify` says how" in done.stderr
    assert "cow 0.7500 b.jpg" in texts(folder / "sheet.html")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("gone.csv", "-o", "sheet.html"), 4, "there is no manifest 'gone.csv'"),
        (("in", "-o", "sheet.html"), 4, "there is no manifest 'in'"),
        (("other.csv", "-o", "sheet.html"), 4, "the summary 'other.csv.summary.json' is missing"),
        (("damaged.csv", "-o", "sheet.html"), 1, "damaged.csv is not a manifest: its first line is not path,"),
        (("rootless.csv", "-o", "sheet.html"), 1, "names no folder as the root of its images: None"),
        (("out.csv", "-o", "sheet.png"), 2, "does not end in .html or .htm"),
        (("out.csv", "-o", "out.csv", "--overwrite"), 2, "does not end in .html or .htm"),
        (("out.csv", "-o", "link.html", "--overwrite"), 2, "does not end in .html or .htm"),
        (("out.csv", "-o", "there.html"), 2, "'there.html' exists; name another, or replace it with --overwrite"),
        (("list.csv", "-o", "list.html", "--overwrite"), 2, "'list.html' is the source itself"),
        (("out.csv", "-o", "nowhere/sheet.html"), 2, "there is no folder 'nowhere'"),
        (("out.csv", "-o", "sheet.html", "--where", "label==cat"), 2, "'label==cat', at character 6 ('==cat')"),
        (("out.csv", "-o", "in/sheet.html"), 2, "is inside the source, which is never written to"),
        (("moved.csv", "-o", "sheet.html"), 4, "is not here; mount it, or undo its move"),
        (("out.csv",), 2, "Missing option '-o'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(manifest, folder, arguments, code, said):
    manifest(answered("a.jpg", "cat"))
    (folder / "other.csv").write_text("a,b\n")
    manifest(answered("a.jpg", "cat"), name="damaged.csv")
    (folder / "damaged.csv").write_text("a,b\n")
    manifest(answered("a.jpg", "cat"), name="rootless.csv", root=None)
    manifest(answered("a.jpg", "cat"), name="list.csv", source="list.html")
    manifest(answered("a.jpg", "cat"), name="moved.csv", root="/nowhere/at/all")
    (folder / "list.html").write_text("in/a.jpg\n")
    (folder / "there.html").write_text("mine")
    (folder / "link.html").symlink_to("in/a.jpg")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    done = write(*arguments)

    assert done.exit_code == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2  # a warning and the error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_existing_page_is_replaced_where_asked(manifest, folder):
    (folder / "sheet.html").write_text("mine")

    done = write(manifest(answered("a.jpg", "cat")), "-o", "sheet.html", "--overwrite")

    assert done.exit_code == 0
    assert "a.jpg" in texts(folder / "sheet.html")


def test_a_file_that_appears_meanwhile_stays(folder):
    page = folder / "sheet.html"

    def write_late() -> None:
        with written_output(page, overwrite=False) as file:
            file.write(b"ours")
            page.write_text("theirs")

    with pytest.raises(UsageError, match="exists; name a file that does not"):
        write_late()
    assert page.read_text() == "theirs"
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["sheet.html"]


def test_a_failure_leaves_nothing(folder):
    with pytest.raises(ZeroDivisionError), written_output(folder / "sheet.html", overwrite=False) as file:
        file.write(b"x" * (1 // 0))

    assert [path.name for path in folder.iterdir() if path.is_file()] == []
