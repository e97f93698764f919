"""A training on several data sets: what its card records, and what a later attempt goes on with."""

from dataclasses import replace

from modeling.images.preprocessing import Preprocessing
from modeling.training.data import data_facts, load_data
from modeling.training.model_folder import _pair
from modeling.training.request import TrainRequest
from tests.support.images import encode, glyph, make_class_folders


def test_a_later_attempt_goes_on_with_the_images_and_corrections_of_all_data_sets(tmp_path):
    photos = make_class_folders(tmp_path / "photos", 6)
    more = make_class_folders(tmp_path / "more", 2)
    (more / "across/000.png").write_bytes(encode(glyph(0, 50)))
    corrected = tmp_path / "corrected.csv"
    corrected.write_text("path,status,label,corrected_label\nphotos/across/005.png,ok,across,down\n")
    request = TrainRequest(photos, "cnn", tmp_path / "model", joined=(more, corrected), work=tmp_path / "work")

    first = load_data(request, lambda event: None, keep=True)
    corrected.unlink()
    later = load_data(request, lambda event: None)
    facts = [data_facts(data) for data in (first, later)]

    assert facts[0] == facts[1]
    assert facts[0]["path"] == f"{photos}, {more} and {corrected}"
    assert facts[0]["sources"] == [
        {"path": str(photos), "kind": "folders", "num_images": 12},
        {"path": str(more), "kind": "folders", "num_images": 4},
        {"path": str(corrected), "kind": "manifest", "num_images": 1},
    ]
    assert facts[0]["classes"] == {"across": 7, "down": 9}
    names = [[data.dataset.name(index) for index in data.split.train] for data in (first, later)]
    assert names[0] == names[1]
    assert later.dataset.files == first.dataset.files


def test_another_list_of_data_sets_is_another_training(tmp_path):
    photos, more = make_class_folders(tmp_path / "photos", 6), make_class_folders(tmp_path / "more", 2)
    request = TrainRequest(photos, "cnn", tmp_path / "model", joined=(more,), work=tmp_path / "work")
    load_data(request, lambda event: None, keep=True)

    alone = load_data(replace(request, joined=()), lambda event: None)

    assert alone.dataset.num_images == 12


def test_copies_in_two_classes_are_a_pair_of_pictures_for_the_report(tmp_path):
    photos = make_class_folders(tmp_path / "photos", 6)
    (photos / "down/copy.png").write_bytes((photos / "across/002.png").read_bytes())
    (photos / "down/again.png").write_bytes((photos / "across/002.png").read_bytes())
    data = load_data(TrainRequest(photos, "cnn", tmp_path / "model"), lambda event: None)
    (photos / "down/again.png").unlink()

    pairs = [_pair(data, found, Preprocessing("L", 12, 12)) for found in data.report.mixed_duplicates()]

    assert [[(each.name, each.label) for each in pair[:2]] for pair in pairs] == [
        [("across/002.png", "across"), ("down/again.png", "down")]
    ]
    one, other, exact = pairs[0]
    assert one.picture is not None
    assert (one.picture.shape, other.picture, exact) == ((12, 12, 1), None, True)
