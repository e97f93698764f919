import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modeling.training.transfer.cache import FeatureCache

KEY = "ab" * 32


def digests(*numbers: int) -> list[str]:
    return [f"{number:064x}" for number in numbers]


def rows(*numbers: int) -> np.ndarray:
    return np.array([[number, number + 0.5, -number] for number in numbers], dtype=np.float32)


def files(folder) -> list:
    return sorted(folder.glob("*/*.features"))


def test_saved_features_come_back_bit_for_bit_and_others_are_unknown(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.save(KEY, digests(1, 2), rows(1, 2))
    cache.save(KEY, digests(3), rows(3))

    features, known = cache.load(KEY, digests(3, 9, 1, 3), 3)

    np.testing.assert_array_equal(features, [[3, 3.5, -3], [0, 0, 0], [1, 1.5, -1], [3, 3.5, -3]])
    assert known.tolist() == [True, False, True, True]


def test_another_key_knows_nothing(tmp_path):
    FeatureCache(tmp_path).save(KEY, digests(1), rows(1))

    _, known = FeatureCache(tmp_path).load("cd" * 32, digests(1), 3)

    assert known.tolist() == [False]


def test_a_deleted_folder_is_an_empty_cache(tmp_path):
    _, known = FeatureCache(tmp_path / "gone").load(KEY, digests(1), 3)

    assert known.tolist() == [False]


def test_a_damaged_file_is_removed_and_the_others_serve(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.save(KEY, digests(1), rows(1))
    (damaged,) = files(tmp_path)
    cache.save(KEY, digests(2), rows(2))
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)

    _, known = cache.load(KEY, digests(1, 2), 3)

    assert known.tolist() == [False, True]
    assert not damaged.exists()


def test_a_file_cut_short_is_removed(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.save(KEY, digests(1), rows(1))
    (cut,) = files(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-5])

    _, known = cache.load(KEY, digests(1), 3)

    assert (known.tolist(), files(tmp_path)) == ([False], [])


def test_features_of_another_length_are_not_taken(tmp_path):
    FeatureCache(tmp_path).save(KEY, digests(1), rows(1))

    _, known = FeatureCache(tmp_path).load(KEY, digests(1), 4)

    assert known.tolist() == [False]


def test_many_writers_at_once_lose_nothing(tmp_path):
    def save(number: int) -> None:
        FeatureCache(tmp_path).save(KEY, digests(number // 2), rows(number // 2))  # two write the same

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(40)))

    features, known = FeatureCache(tmp_path).load(KEY, digests(*range(20)), 3)
    assert known.all()
    np.testing.assert_array_equal(features, rows(*range(20)))
    assert len(files(tmp_path)) == 20
    assert [path.suffix for path in (tmp_path / KEY).iterdir()] == [".features"] * 20  # no temporary is left


def test_the_files_least_recently_used_are_removed_beyond_the_limit(tmp_path):
    cache = FeatureCache(tmp_path)
    for number in (1, 2, 3):
        cache.save(f"{number:064x}", digests(number), rows(number))
        os.utime(files(tmp_path / ".")[-1], (number, number))
    size = files(tmp_path)[0].stat().st_size
    cache.load(f"{1:064x}", digests(1), 3)  # used just now

    FeatureCache(tmp_path, limit_bytes=3 * size).save(f"{4:064x}", digests(4), rows(4))

    assert [int(path.parent.name) for path in files(tmp_path)] == [1, 3, 4]


def test_what_is_saved_stays_even_if_it_is_beyond_the_limit(tmp_path):
    cache = FeatureCache(tmp_path, limit_bytes=1)

    cache.save(KEY, digests(1), rows(1))

    assert cache.load(KEY, digests(1), 3)[1].tolist() == [True]


def test_a_file_of_another_format_is_passed_over(tmp_path):
    data = json.dumps({"format": 99}).encode() + b"\n"
    path = tmp_path / KEY / f"{hashlib.sha256(data).hexdigest()}.features"
    path.parent.mkdir()
    path.write_bytes(data)

    _, known = FeatureCache(tmp_path).load(KEY, digests(1), 3)

    assert (known.tolist(), path.exists()) == ([False], True)


def test_what_a_killed_writer_left_is_cleared_away_and_a_running_one_is_left_alone(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.save(KEY, digests(1), rows(1))
    old, new = tmp_path / KEY / ".old.tmp", tmp_path / KEY / ".new.tmp"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))

    cache.save(KEY, digests(2), rows(2))

    assert (old.exists(), new.exists()) == (False, True)
