from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.demo.fonts import AILERON, BOLD, ROMAN, TRAINING_FACES
from orchestrator.demo.glyphs import cut_specimens, write_training_glyphs
from orchestrator.demo.page import NOTICE, Line, render_page
from orchestrator.demo.scan import Scanner
from orchestrator.pages.alphabet import ALPHABET, CHARACTER_OF, label_of, text_of
from orchestrator.pages.cut import cut_page


def test_no_family_both_teaches_and_prints_the_page():
    assert {face.family for face in TRAINING_FACES}.isdisjoint(face.family for face in (ROMAN, BOLD, AILERON))
    assert {line.face for line in NOTICE} == {ROMAN, BOLD, AILERON}


def test_labels_and_characters_go_there_and_back():
    assert [text_of(label_of(character)) for character in ALPHABET] == list(ALPHABET)
    assert set("".join(line.text for line in NOTICE)) - {" "} <= set(ALPHABET)


def test_class_folders_are_safe_where_file_names_ignore_case():
    assert len({label.lower() for label in CHARACTER_OF}) == len(CHARACTER_OF)
    assert all(label.replace("_", "").isalnum() and label.isascii() for label in CHARACTER_OF)


def test_an_unknown_character_is_named():
    with pytest.raises(ValueError, match="'%'"):
        label_of("%")


def test_glyphs_of_every_class_are_written_and_the_same_for_the_same_seed(tmp_path):
    num_first = write_training_glyphs(tmp_path / "first", 7, 2, TRAINING_FACES[:1])
    num_second = write_training_glyphs(tmp_path / "second", 7, 2, TRAINING_FACES[:1])

    assert num_first == num_second == 2 * len(CHARACTER_OF)
    assert _files(tmp_path / "first") == _files(tmp_path / "second")
    assert {path.parent.name for path in (tmp_path / "first").rglob("*.png")} == set(CHARACTER_OF)
    with Image.open(next((tmp_path / "first").rglob("*.png"))) as glyph:
        assert (glyph.mode, glyph.size) == ("L", (28, 28))


def test_a_specimen_and_a_page_in_the_same_face_look_the_same_to_the_classifier():
    face = TRAINING_FACES[0]
    (line,) = cut_specimens(face, 1, np.random.default_rng(1))
    specimens = dict(line)
    page = cut_page(render_page(0, (Line(ALPHABET, face, 44, 80),), Scanner()).image)

    def nearest(frame: Image.Image) -> str:
        return min(specimens, key=lambda c: np.abs(np.asarray(specimens[c], float) - np.asarray(frame)).sum())

    hits = [nearest(cut.frame) == wanted for cut, wanted in zip(page.characters, ALPHABET, strict=True)]
    assert np.mean(hits) > 0.7  # a guess hits one in 73


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}
