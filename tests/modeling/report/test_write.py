import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder
from jinja2 import StrictUndefined, UndefinedError
from PIL import Image

from modeling.report.canvas import Plot
from modeling.report.content import LabelledPicture, ReportContent, Sample
from modeling.report.pictures import mistake_pictures
from modeling.report.write import TEMPLATES, page_environment, render, write_report
from tests.support.report_contents import EVIL, TEXT_FIELDS, evaluation, named_content, picture, whole_content

VOID = {"img", "link", "meta", "source"}


class Page(HTMLParser):
    """What a browser would make of the page: its elements, all properly closed, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.markup = markup
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\u202f", " ").replace("\u00a0", " ").split())

    def headings(self) -> list[str]:
        return [attributes["id"] for tag, attributes in self.elements if tag == "section"]

    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every element with the names of its attributes."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]

    def words(self) -> str:
        """All that is not markup: text and the values of attributes."""
        values = [value or "" for _, attributes in self.elements for value in attributes.values()]
        return "\n".join([*self.texts, *values])


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def composed(content: ReportContent) -> Page:
    """The page with blanks for plots, which take their time to draw."""
    names = ("confusion", "reliability", "coverage") if content.evaluation else ()
    names += ("curves",) if content.history else ()
    return Page(render(content, {name: Plot(name, b"", b"", 480) for name in names}, mistake_pictures(content)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), whole_content())


def test_a_whole_content_makes_every_section_in_the_order_of_an_operators_questions(whole):
    page = read(whole)

    assert page.headings() == [
        *("glance", "mistakes", "confusion", "classes", "reliability", "coverage", "samples", "curves", "data", "facts")
    ]


def test_the_plots_are_files_beside_the_page(whole):
    names = sorted(path.name for path in (whole.parent / "plots").iterdir())

    assert names == [
        f"{name}.png" for name in ("confusion", "coverage", "curves", "mistakes", "reliability", "samples")
    ]
    for path in (whole.parent / "plots").iterdir():
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.info.get("Software")) == ("PNG", None)


def test_the_page_loads_nothing_and_runs_nothing(whole):
    page = read(whole)
    addresses = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "srcset", "href")
    ]

    assert {re.split("[,;]", address)[0] for address in addresses if not address.startswith("#")} == {
        "data:",
        "data:image/png",
        "data:image/jpeg",
    }
    assert "script" not in {tag for tag, _ in page.elements}
    assert not re.search(r"url\(|@import", whole.read_text())


def test_every_picture_says_what_it_shows(whole):
    pictures = [attributes for tag, attributes in read(whole).elements if tag == "img"]

    assert len(pictures) == 4 + 2 + 2  # plots, mistakes, samples
    assert all(attributes["alt"] for attributes in pictures)


def test_the_headline_leads_with_accuracy_its_interval_and_the_review_rate_at_the_stated_error(whole):
    text = read(whole).text

    assert "Test accuracy 85.0 % 95 % interval 64.0 to 95.0 % 17 of 20 right".lower() in text.lower()
    assert "Go to review 20.0 % at an error budget of 1.0 % and 10.0 % rejected" in text
    assert "expect about 700 to be answered without a person, about 0 of them wrongly; the other 300 are marked" in text


def test_a_mistake_that_the_thresholds_let_through_is_named_as_such(whole):
    page = read(whole)

    assert "1 of these 2 scores high enough to be accepted unseen." in page.text  # dog is never accepted, cat from 0.9
    assert [attributes["class"] for _, attributes in page.elements if "badge" in attributes.get("class", "")] == [
        *("badge review", "badge slipped", "badge accept", "badge review")
    ]


def test_the_same_content_gives_the_same_bytes(tmp_path, whole):
    again = write_report(tmp_path, whole_content())

    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 7
    assert all((tmp_path / file).read_bytes() == (whole.parent / file).read_bytes() for file in files)
    assert again.name == "report.html"


def test_a_model_without_a_test_part_gets_its_curves_and_its_data(tmp_path):
    page = read(write_report(tmp_path, whole_content(evaluation=None, samples=())))

    assert page.headings() == ["curves", "data", "facts"]
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["curves.png"]


def test_an_imported_model_without_calibration_or_history_gets_its_evaluation():
    content = ReportContent("imported@1", evaluation=evaluation(decisions=False), part="validation")

    page = composed(content)

    assert page.headings() == ["glance", "mistakes", "confusion", "classes", "reliability", "coverage"]
    assert "expect about 850 to get the right label" in page.text
    assert "This model has no thresholds" in page.text
    assert page.text.count("no picture") == 2
    assert "accepted from" not in page.text


def test_an_empty_content_is_a_page_with_its_title():
    page = composed(ReportContent("nothing@1"))

    assert (page.headings(), "nothing@1" in page.text) == ([], True)


def test_classes_without_images_are_named():
    made = evaluation(((8, 2, 0), (1, 9, 0), (0, 0, 0)), ("cat", "dog", "cow"))

    page = composed(ReportContent("half@1", evaluation=made))

    assert "Nothing is measured for 1 class without images: cow." in page.text


def test_a_model_without_mistakes_says_so():
    page = composed(ReportContent("perfect@1", evaluation=evaluation(((10, 0), (0, 10)))))

    assert "Every image got its true label." in page.text
    assert "No class was taken for another." in page.text


def test_text_from_outside_is_never_markup_nor_template_in_any_field():
    harmless = composed(named_content(lambda field: "x" * len(EVIL + field)))

    page = composed(named_content(lambda field: EVIL + field))

    assert page.skeleton() == harmless.skeleton()
    assert [field for field in TEXT_FIELDS if EVIL + field not in page.words()] == []


def test_characters_that_no_page_can_hold_are_replaced_in_every_field():
    page = composed(named_content(lambda field: f"\x00{field}\udcff\x1b\u65e5"))

    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", page.markup)
    assert [field for field in TEXT_FIELDS if f"\ufffd{field}\ufffd\ufffd\u65e5" not in page.words()] == []


def test_every_template_escapes_and_misses_no_name():
    environment = page_environment()
    templates = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATES.iterdir()}

    assert environment.autoescape is True
    assert environment.undefined is StrictUndefined
    assert [name for name, text in templates.items() if re.search(r"\bsafe\b|autoescape|<script", text)] == []
    with pytest.raises(UndefinedError):
        environment.get_template("report.html").render(title="nothing else")


def test_the_wheel_holds_every_template():
    packed = {file.distribution_path for file in WheelBuilder(str(TEMPLATES.parents[2])).recurse_included_files()}

    assert {f"modeling/report/templates/{path.name}" for path in TEMPLATES.iterdir()} <= packed


def test_long_names_are_shortened_and_whole_when_pointed_at_or_tapped():
    label = "a very long label that no card can hold, number 17"

    page = composed(whole_content(evaluation=evaluation(labels=(label, "dog"))))

    assert label in {attributes.get("title") for _, attributes in page.elements}
    parts = re.findall(r'<span class="cut">([^<]*)</span><span class="all">([^<]*)</span></summary>', page.markup)
    assert {whole for _, whole in parts} == {label, f"{label}/0.png"}
    assert all("…" in cut and whole.endswith(cut.partition("…")[2]) for cut, whole in parts)


def test_copies_with_two_labels_are_shown_as_pairs_of_pictures():
    pair = (LabelledPicture("cat/1.png", "cat", picture(1)), LabelledPicture("dog/2.png", "dog", None), False)

    page = composed(whole_content(doubtful=(pair,), num_doubtful=3))

    assert "look" in page.headings()
    assert "cat cat/1.png no picture dog dog/2.png nearly the same picture And 2 pairs more" in page.text
    assert "cat/1.png: cat" in {attributes.get("alt") for _, attributes in page.elements}
    assert "look" not in composed(whole_content()).headings()


def test_a_thousand_classes_stay_a_page_of_bounded_size():
    counts = np.eye(1000, dtype=int) * 5
    counts[np.arange(1000), (np.arange(1000) + 1) % 1000] += np.arange(1000) % 3
    labels = tuple(f"class number {i} of a thousand" for i in range(1000))
    data = {"classes": dict.fromkeys(labels, 7)}
    made = evaluation(counts, labels)

    page = composed(ReportContent("many@1", evaluation=made, data=data, picture=lambda index: picture(index, 400)))

    assert len(page.markup) < 2_000_000
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 3 + 24
    assert "The other 988 classes" in page.text


def test_thumbnails_are_small_and_tiny_images_stay_sharp():
    samples = tuple(Sample(f"{side}.png", "a", "a", 0.9, None, picture(side, side)) for side in (28, 600))

    page = composed(ReportContent("sides@1", samples=samples))

    found = [(attributes["class"], attributes["width"]) for tag, attributes in page.elements if tag == "img"]
    assert found == [("thumb tiny", "28"), ("thumb", "128")]


def test_figures_that_were_not_measured_are_left_out_of_tables():
    made = evaluation(((5, 1, 0), (0, 4, 0), (0, 0, 0)), ("cat", "dog", "emu"))

    page = composed(whole_content(evaluation=made, calibration=None))

    assert "emu 0 – – – – –" in page.text  # images, recall, interval, precision, F1, taken for


def test_importing_reports_loads_no_matplotlib_jinja2_or_torch():
    loaded = "[name for name in ('matplotlib', 'jinja2', 'torch') if name in sys.modules]"
    code = f"import sys, modeling.report.write, modeling.report.plots; print({loaded})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_browser_shows_the_page(tmp_path, whole):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH to look at the page with")
    shot = tmp_path / "shot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]

    command = [browser, *options, "--window-size=800,900", f"--screenshot={shot}", whole.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=60)

    with Image.open(shot) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {(31, 51, 73), (255, 254, 250)} <= colours  # the band and the sheet of the light theme
