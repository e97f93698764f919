"""Arrays in a file: what was written is what is read, and nothing is left of it."""

import numpy as np

from modeling.data import perceptual_hash
from modeling.data.duplicates import group_images
from modeling.data.facts import THUMBNAIL_BYTES, check_image
from modeling.data.perceptual_hash import candidate_pairs
from modeling.data.scratch import ScratchFile, in_file, in_memory
from tests.support.images import encode
from tests.support.pictures import photo


def test_a_file_gives_back_the_rows_of_all_chunks_and_has_no_name(tmp_path):
    chunks = [np.arange(6, dtype=np.uint16).reshape(3, 2), np.array([[7, 8]], dtype=np.uint16)]

    kept = in_file(tmp_path)(iter(chunks))

    assert kept.tolist() == [[0, 1], [2, 3], [4, 5], [7, 8]]
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_rows_is_an_array_without_rows(tmp_path):
    assert ScratchFile(tmp_path, np.uint8, 5).mapped().shape == (0, 5)


def test_what_the_bands_have_of_each_image_is_kept_where_the_caller_wants_it():
    kept = []

    def keep(chunks):
        kept.append(in_memory(chunks))
        return kept[-1]

    found = np.concatenate(list(candidate_pairs(twice(50), keep=keep)))

    assert {tuple(pair) for pair in found.tolist()} >= {(image, image + 50) for image in range(50)}
    assert sum(array.nbytes for array in kept) == 100 * (8 + 16 * 2 + 16 * 4)


def test_a_band_in_stretches_gives_the_same_pairs(monkeypatch):
    whole = np.concatenate(list(candidate_pairs(twice(20))))
    monkeypatch.setattr(perceptual_hash, "_IMAGES_AT_ONCE", 3)
    parts = np.concatenate(list(candidate_pairs(twice(20))))

    assert len(whole) >= 20
    assert sorted(parts.tolist()) == sorted(whole.tolist())


def twice(count: int) -> np.ndarray:
    """Thumbnails of noise, and each of them again."""
    noise = np.random.default_rng(7).integers(0, 256, (count, THUMBNAIL_BYTES), dtype=np.uint8)
    return np.concatenate([noise, noise])


def test_duplicates_are_the_same_where_arrays_are_kept_in_files(tmp_path):
    pictures = [photo(1), photo(2), photo(1).resize((48, 36)), photo(3), photo(2)]
    facts = [check_image(encode(picture)) for picture in pictures]
    file = ScratchFile(tmp_path, np.uint8, len(facts[0].thumbnail))
    for fact in facts:
        file.write(fact.thumbnail)

    found = group_images(
        np.array([10, 30, 20, 5, 30]), file.mapped(), np.array([fact.size for fact in facts]), in_file(tmp_path)
    )

    assert found.groups_N.tolist() == [0, 1, 0, 3, 1]
    assert found.exact_N.tolist() == [False, True, False, True, True]
    assert not found.alike_N.any()
