"""The sheet as a browser shows it: on a phone, in the dark, by keyboard, to a screen reader, without a network."""

import pytest
from PIL import Image

from orchestrator.contract.jobs.rows import summary_path
from orchestrator.jobs.results import Published, read_summary
from orchestrator.sheets.select import Wanted
from orchestrator.sheets.sheet import write_sheet
from orchestrator.sheets.thumbnails import ImageSource
from tests.support.browser import Browser, opened_browser
from tests.support.images import encode
from tests.support.manifests import answered, failed, publish_rows
from tests.support.report_contents import EVIL

WIDE = "w" * 250  # one word


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a sheet of 200 images, some of them with names and labels that break pages."""
    folder = tmp_path_factory.mktemp("sheet")
    rows = [answered(f"{number}.jpg", f"label {number % 3}", score=0.5, decision="review") for number in range(200)]
    rows += [
        answered("evil.jpg", EVIL),
        answered(f"{WIDE}.jpg", WIDE),
        failed("<script>alert(1)</script>.jpg", WIDE, EVIL * 9),
    ]
    for number, row in enumerate(rows):  # each of another colour: browsers load equal pictures once
        picture = Image.new("RGB", (300, 200), (number, 255 - number, number % 7 * 30))
        (folder / row.path.replace("/", "_")).write_bytes(encode(picture, "JPEG"))
    manifest = publish_rows(folder / "out.csv", rows, folder, source=f"{WIDE} {EVIL}")
    published = Published(manifest, read_summary(summary_path(manifest)))
    with (folder / "sheet.html").open("wb") as file:
        source = ImageSource(str(folder), 1 << 20, 1 << 20)
        write_sheet(published, Wanted(None, "label", 500), source, file, lambda num, total: None)
    return (folder / "sheet.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with opened_browser(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.mark.parametrize("width", [390, 320, 1400])
def test_nothing_is_wider_than_the_screen(browser: Browser, page: str, width: int):
    browser.show(page, width=width)

    assert browser.evaluate("document.documentElement.scrollWidth") == width
    beyond = "[...document.body.querySelectorAll('*:not(.skip)')].filter(each => each.scrollWidth > innerWidth).length"
    assert browser.evaluate(beyond) == 0


def test_nothing_is_run_and_nothing_is_fetched(browser: Browser, page: str):
    browser.show(page, width=390)

    addresses = [
        each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"
    ]
    assert addresses[0] == page
    assert {address.partition(":")[0] for address in addresses[1:]} == {"data"}
    kinds = {each["method"] for each in browser.events}
    assert kinds.isdisjoint({"Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"})
    assert browser.evaluate("document.scripts.length") == 0


def test_pictures_are_loaded_when_they_come_into_view(browser: Browser, page: str):
    browser.show(page, width=390)
    loaded = "[...document.images].filter(image => image.complete && image.naturalWidth == 240).length"

    first = browser.evaluate(loaded)
    browser.evaluate("document.images[201].scrollIntoView()")
    browser.call("Runtime.evaluate", expression="document.images[201].decode()", awaitPromise=True)

    assert 0 < first < 100
    assert browser.evaluate("document.images.length") == 202
    assert browser.evaluate("document.images[201].naturalWidth") == 240


def test_light_and_dark(browser: Browser, page: str):
    background = "getComputedStyle(document.body).backgroundColor"

    browser.show(page, width=390)
    light = browser.evaluate(background)
    browser.show(page, width=390, dark=True)

    assert (light, browser.evaluate(background)) == ("rgb(247, 244, 237)", "rgb(18, 23, 31)")


def test_the_keyboard_reaches_the_pictures_and_each_group(browser: Browser, page: str):
    browser.show(page, width=390)
    reached = []

    for _ in range(4):
        browser.press("Tab")
        reached.append(
            browser.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName")
        )

    assert reached == ["#pictures", "SUMMARY", "#group-1", "#group-2"]


def test_a_screen_reader_gets_every_picture_with_its_name(browser: Browser, page: str):
    browser.show(page, width=390)

    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    assert {name for role, name in named if role == "image"} >= {f"{number}.jpg" for number in range(200)}
    assert [name for role, name in named if role == "heading"][:2] == ["out.csv", "label 0"]
    assert ("navigation", "Groups") in named
