import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.names import path_to_text
from orchestrator.contract.errors import IntegrityError, MessageError
from orchestrator.contract.jobs.listing import (
    ListingFacts,
    ListingWriter,
    PathsDigest,
    SourceFacts,
    count_shards,
    read_facts,
    read_shard,
    read_source_facts,
)

PATHS = st.lists(st.binary(max_size=20).map(os.fsdecode), max_size=30)


def write(folder, paths, shard_size, skipped=None):
    with ListingWriter(folder, shard_size) as writer:
        cuts = [writer.add(path) for path in paths]
        return cuts, writer.close(skipped or {})


@given(paths=PATHS, shard_size=st.integers(1, 7))
def test_paths_come_back_in_order_shard_by_shard(paths, shard_size, tmp_path):
    cuts, facts = write(tmp_path, paths, shard_size, {".txt": 2, "hidden": 1})

    shards = [read_shard(tmp_path, shard) for shard in range(facts.num_shards)]
    assert [path for shard in shards for path in shard] == paths
    assert {len(shard) for shard in shards[:-1]} <= {shard_size}
    assert cuts.count(True) == len(paths) // shard_size
    assert count_shards(tmp_path) == (facts.num_shards, facts.num_images) == (-(-len(paths) // shard_size), len(paths))
    assert read_facts(tmp_path) == facts
    assert facts == ListingFacts(
        num_images=len(paths),
        num_shards=len(shards),
        sha256=hashlib.sha256((tmp_path / "listing").read_bytes()).hexdigest(),
        skipped={".txt": 2, "hidden": 1},
    )


def test_names_with_newlines_and_bytes_that_are_no_utf8_stay_on_one_line(tmp_path):
    names = [b"line\nend.jpg", b"caf\xe9.jpg", "🐦.jpg".encode(), b'"],["', b"\\n"]
    write(tmp_path, map(os.fsdecode, names), shard_size=2)

    assert len((tmp_path / "listing").read_bytes().splitlines()) == len(names)
    assert [os.fsencode(path) for shard in range(3) for path in read_shard(tmp_path, shard)] == names


def test_an_unfinished_listing_has_the_published_shards(tmp_path):
    with ListingWriter(tmp_path, 2) as writer:
        for number in range(5):
            writer.add(f"{number}.jpg")
        before = count_shards(tmp_path)
        writer.publish()
        after = count_shards(tmp_path)
        for number in range(5, 8):
            writer.add(f"{number}.jpg")

        assert (before, after, read_facts(tmp_path)) == ((0, 0), (2, 4), None)
        assert read_shard(tmp_path, 1) == ["2.jpg", "3.jpg"]
        assert (writer.num_shards, writer.num_images) == (4, 8)


def test_the_index_never_refers_to_paths_that_are_not_on_the_disk(tmp_path):
    with ListingWriter(tmp_path, 1) as writer:
        for number in range(3000):  # enough to overflow any buffer
            writer.add(f"{number}")
            if number % 1000 == 500:
                writer.publish()
            if number % 50 == 0:
                num_shards, num_images = count_shards(tmp_path)
                assert num_images == num_shards
                assert num_shards == 0 or read_shard(tmp_path, num_shards - 1) == [str(num_shards - 1)]


def test_half_a_record_at_the_end_of_the_index_is_no_shard(tmp_path):
    write(tmp_path, ["a", "b", "c"], shard_size=1)
    index = (tmp_path / "listing.index").read_bytes()
    (tmp_path / "listing.index").write_bytes(index[:-10])

    assert count_shards(tmp_path) == (2, 2)
    with pytest.raises(IntegrityError, match="has no shard 2"):
        read_shard(tmp_path, 2)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"\0" * len(data), lambda data: b""])
@pytest.mark.parametrize("name", ["listing", "listing.index"])
def test_a_damaged_listing_is_detected(name, damage, tmp_path):
    write(tmp_path, ["a.jpg", "b.jpg"], shard_size=2)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))

    with pytest.raises(IntegrityError, match="shard 0"):
        read_shard(tmp_path, 0)


def test_a_folder_without_a_listing_has_no_shards(tmp_path):
    assert count_shards(tmp_path) == (0, 0)
    assert read_facts(tmp_path) is None


def test_facts_of_another_version_are_refused(tmp_path):
    (tmp_path / "listing.json").write_text('{"version": 2}')

    with pytest.raises(MessageError, match=r"listing\.json has version 2"):
        read_facts(tmp_path)


def test_how_the_lister_saw_the_source_is_kept(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    assert read_source_facts(tmp_path) is None

    facts = SourceFacts.of(path_to_text(str(root)), walked=True)
    facts.write(tmp_path)

    assert read_source_facts(tmp_path) == facts
    assert (facts.walked, facts.empty, facts.mounts, facts.device) == (True, False, (), root.stat().st_dev)
    assert SourceFacts.of(path_to_text(str(root)), walked=False).empty
    assert not SourceFacts.of(path_to_text(str(tmp_path)), walked=False).empty
    assert "proc" in SourceFacts.of("/", walked=True).mounts


def test_a_root_has_moved_if_its_device_is_another_on_the_same_machine(tmp_path):
    facts = SourceFacts.of(str(tmp_path), walked=True)
    other_device = facts.model_copy(update={"device": facts.device + 1})

    assert not facts.may_have_moved(str(tmp_path))
    assert facts.may_have_moved(str(tmp_path / "gone"))
    assert other_device.may_have_moved(str(tmp_path))
    assert not other_device.model_copy(update={"machine": "another"}).may_have_moved(str(tmp_path))


@pytest.mark.parametrize("num_paths", [0, 1, 4096, 5000])
def test_the_digest_of_paths_is_that_of_their_listing(num_paths, tmp_path):
    paths = [os.fsdecode(b"caf\xe9 %d.jpg" % number) for number in range(num_paths)]
    digest = PathsDigest()

    for path in paths:
        digest.add(path)

    _, facts = write(tmp_path, paths, 100)
    assert digest.hexdigest() == facts.sha256
