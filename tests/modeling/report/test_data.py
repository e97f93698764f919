import re

from modeling.report.content import ReportContent
from modeling.report.write import render

REPORT = {
    "path": "birds",
    "num_images": 1204,
    "num_unreadable": 2,
    "num_leaked": 0,
    "classes": {"robin": 3, "wren": 1199},
    "sizes": {"smallest": "20 x 20", "num_distinct": 3, "most_common": {"64 x 64": 9}},
    "findings": [
        {"severity": "info", "code": "a", "message": "a note"},
        {"severity": "warning", "code": "b", "message": "a warning"},
        {"severity": "error", "code": "c", "message": "an error"},
    ],
    "unreadable": [{"path": "wren/1.png", "code": "truncated", "message": "it ends early"}],
    "duplicates": [
        {"exact": False, "labels": ["wren"], "images": ["wren/2.png", "wren/3.png"]},
        {"exact": True, "labels": ["robin", "wren"], "images": [f"wren/{i}.png" for i in range(6)]},
    ],
}


def section(report) -> str:
    """The markup behind the section's lead."""
    return (
        render(ReportContent("birds@1", data=report), {}, []).split("longer training does.</p>")[1].split("</main>")[0]
    )


def words(report) -> str:
    """The section's text."""
    text = re.sub("<[^>]*>", " ", section(report))
    return " ".join(text.replace("\u202f", " ").replace("\u00a0", " ").split())


def test_a_data_report_reads_from_its_numbers_to_its_details():
    assert words(REPORT) == (
        "1,204 images 2 classes 2 unreadable "
        "Findings error an error warning a warning note a note "
        "Images in 2 classes wren 1,199 robin 3 "
        "Copies: 2 sets, those in several classes first images that show the same copy class "
        "wren/0.png wren/1.png wren/2.png wren/3.png and 2 more exact robin, wren wren/2.png wren/3.png near wren "
        "Images that cannot be read image why it cannot be read wren/1.png it ends early "
        "Details folder or file birds sizes in pixels smallest 20 x 20, distinct 3"
    )


def test_a_report_of_almost_nothing_is_shown_as_far_as_it_goes():
    assert words({"num_images": 0, "classes": {}}) == "Findings Nothing to complain about."


def test_many_classes_are_folded_away_and_none_is_lost():
    body = section({"classes": {f"class {i}": i for i in range(30)}})

    assert "The 10 smaller classes, down to 0 images" in body
    assert body.count("<li>") == 30 + 1  # and the number of classes


def test_more_classes_than_a_page_has_room_for_are_counted():
    assert "And 500 classes more." in words({"classes": {f"class {i}": 1 for i in range(1500)}})
