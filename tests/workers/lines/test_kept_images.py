"""Images for review and audit: which are kept, where, and within which bounds."""

import itertools
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.contract.lines.answers import Answer, Verdict, encode_facts
from orchestrator.contract.lines.settings import LineSettings
from tests.support.server import wait_until
from workers.lines.image_bounds import ImageBounds
from workers.lines.kept_images import ImageKeeper, ImageWriter, KeptImage, audit_secret, why_kept

SETTINGS = LineSettings(name="post", model="m@champion", fallback="F", review="R", bins={"cat": ("1",)}, keep_share=0)
ACCEPTED = Answer("i", 1, "1", label="cat", score=0.9, model="m@1")
LATE = Verdict("F", "late", "device")
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a line."""
    (tmp_path / "post").mkdir()
    return tmp_path / "post"


def kept(folder: Path) -> list[KeptImage]:
    indexes = sorted((folder / "images").glob("*/index-*.jsonl"))
    return [KeptImage.decode(line) for index in indexes for line in index.read_bytes().splitlines()]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("*/*.image"))


@pytest.mark.parametrize(
    ("bin_", "reason", "why"),
    [
        ("R", "low_confidence", "review"), ("F", "late", "fallback"), ("F", "no_bin", "fallback"), ("1", None, None),
        ("2", "next_bin", None),
    ],
)  # fmt: skip
def test_what_went_to_review_or_the_fallback_bin_is_kept(bin_, reason, why):
    assert why_kept(SETTINGS, b"key", "1/i", bin_, reason) == why


def test_one_bin_for_both_is_told_apart_by_the_reason():
    same = replace(SETTINGS, review="F")

    assert why_kept(same, b"key", "1/i", "F", "low_confidence") == "review"
    assert why_kept(same, b"key", "1/i", "F", "late") == "fallback"


def test_a_share_of_the_accepted_is_kept_and_the_same_one_again():
    some = replace(SETTINGS, keep_share=0.1)
    keys = [f"1/item {number}" for number in range(5_000)]

    drawn = [why_kept(some, b"key", key, "1", None) for key in keys]

    assert 420 < drawn.count("audit") < 580
    assert drawn == [why_kept(some, b"key", key, "1", None) for key in keys]
    assert drawn != [why_kept(some, b"other key", key, "1", None) for key in keys]


@pytest.mark.parametrize("off", [{"keep_images_s": 0}, {"keep_images_bytes": 0}])
def test_a_line_may_keep_nothing(off):
    assert why_kept(replace(SETTINGS, keep_share=1, **off), b"key", "1/i", "F", "late") is None


def test_the_key_of_the_draw_is_made_once_and_for_the_owner_alone(folder):
    first = audit_secret(folder)

    assert audit_secret(folder) == first
    assert len(first) == 32
    assert stat.S_IMODE((folder / "audit.key").stat().st_mode) == 0o600


def test_an_image_is_written_under_a_safe_name_with_a_line_in_the_index(folder):
    answer = Answer("../../../etc/passwd\n\0é", 3, "R", "low_confidence", label="cat", score=0.5, model="m@1")

    ImageWriter(folder).write(b"bytes", answer, "review")

    (path,) = files(folder)
    (line,) = kept(folder)
    assert path.read_bytes() == b"bytes"
    assert path.parent.parent == folder / "images"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert line == KeptImage(
        path.name, answer.item, 3, "R", "low_confidence", "cat", 0.5, "m@1", "review", 5, line.kept_ms
    )  # fmt: skip


def test_the_same_item_again_takes_the_same_place(folder):
    writer = ImageWriter(folder)
    for image in (b"one", b"two"):
        writer.write(image, ACCEPTED, "audit")

    assert [path.read_bytes() for path in files(folder)] == [b"two"]


class TestKeeper:
    @pytest.fixture
    def keeper(self, folder: Path) -> Iterator[ImageKeeper]:
        keeper = ImageKeeper(folder.parent)
        yield keeper
        keeper.close(10)

    def test_it_writes_what_the_settings_ask_for(self, keeper, folder):
        keeper.keep(SETTINGS, b"late", "1/a", LATE, "")
        keeper.keep(SETTINGS, b"accepted", "1/b", Verdict("1"), "")
        keeper.keep(SETTINGS, b"review", "2/c", Verdict("R", "low_confidence"), encode_facts(label="cat", score=0.5))
        keeper.close(60)

        found = [(each.item, each.pass_, each.why, each.label) for each in kept(folder)]
        assert found == [("a", 1, "fallback", None), ("c", 2, "review", "cat")]
        assert keeper.take_not_kept("post") == 0

    def test_it_counts_what_does_not_fit_and_holds_nobody_up(self, keeper, monkeypatch):
        writing, go_on = threading.Event(), threading.Event()

        def write_slowly(*_: object) -> None:
            writing.set()
            assert go_on.wait(60)

        monkeypatch.setattr(ImageWriter, "write", write_slowly)
        keeper.keep(SETTINGS, b"x", "1/first", LATE, "")
        assert writing.wait(60)
        for number in range(600):
            keeper.keep(SETTINGS, b"x", f"1/{number}", LATE, "")
        few = keeper.take_not_kept("post")
        keeper.keep(SETTINGS, bytes(65 << 20), "1/large", LATE, "")
        go_on.set()

        assert (few, keeper.take_not_kept("post")) == (600 - 512, 1)

    def test_a_line_that_was_removed_gets_no_files_and_costs_no_other(self, keeper, folder):
        keeper.keep(replace(SETTINGS, name="gone"), b"x", "1/a", LATE, "")
        keeper.keep(SETTINGS, b"x", "1/b", LATE, "")
        keeper.close(60)

        assert [each.item for each in kept(folder)] == ["b"]
        assert (keeper.take_not_kept("gone"), keeper.take_not_kept("post")) == (1, 0)
        assert not (folder.parent / "gone").exists()

    def test_a_line_that_is_made_again_under_its_name_has_its_own_key(self, keeper, folder):
        keeper.keep(SETTINGS, b"x", "1/a", LATE, "")
        wait_until(lambda: len(kept(folder)) == 1, what="the image is kept")
        shutil.rmtree(folder)
        folder.mkdir()
        keeper.keep(SETTINGS, b"x", "1/b", LATE, "")
        keeper.close(60)

        assert [each.item for each in kept(folder)] == ["b"]
        assert (folder / "audit.key").exists()


class TestBounds:
    @pytest.fixture(autouse=True)
    def _a_second_passes_between_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimpleNamespace(time=itertools.count(NOW.timestamp() - 3600).__next__)
        monkeypatch.setattr("workers.lines.kept_images.time", clock)

    def write(self, folder: Path, *items: str, size: int = 10_000, day: str | None = None) -> None:
        """Images of three blocks each, as one process writes them; day: move them to the folder of a day."""
        writer = ImageWriter(folder)
        for item in items:
            writer.write(bytes(size), replace(ACCEPTED, item=item), "audit")
        if day:
            (today,) = [path for path in (folder / "images").iterdir() if path.name > "2026-06"]
            (folder / "images" / day).mkdir(exist_ok=True)
            for path in today.iterdir():
                path.rename(folder / "images" / day / path.name)
            today.rmdir()

    def present(self, folder: Path) -> list[str]:
        names = {path.name for path in files(folder)}
        return [each.item for each in sorted(kept(folder), key=lambda each: each.kept_ms) if each.file in names]

    def test_nothing_is_over_the_bounds_of_a_line_without_images(self, folder):
        assert ImageBounds(folder / "images").enforce(60, 0, NOW) == 0

    def test_whole_days_go_when_they_are_too_old(self, folder):
        for day in ("2026-05-01", "2026-05-02", "2026-05-03"):
            self.write(folder, day, day=day)
        (folder / "images" / "notes").mkdir()

        ImageBounds(folder / "images").enforce(86_400, 1 << 30, datetime(2026, 5, 3, 12, tzinfo=UTC))

        assert sorted(path.name for path in (folder / "images").iterdir()) == ["2026-05-02", "2026-05-03", "notes"]

    def test_the_oldest_go_first_over_days_and_processes(self, folder):
        self.write(folder, "a", "b", day="2026-05-01")
        self.write(folder, "c")
        self.write(folder, "d", "e")
        bounds = ImageBounds(folder / "images")

        left = [bounds.enforce(10**9, 3 * 12_288, NOW), bounds.size]

        assert self.present(folder) == ["c", "d", "e"]
        assert left == [3 * 12_288] * 2
        assert bounds.enforce(10**9, 12_288, NOW) == 12_288
        assert self.present(folder) == ["e"]

    def test_only_what_is_new_is_read_again(self, folder):
        self.write(folder, "a")
        bounds = ImageBounds(folder / "images")
        bounds.enforce(10**9, 1 << 30, NOW)
        (index,) = (folder / "images").glob("*/index-*")
        line = index.read_bytes()
        index.write_bytes(b"x" * (len(line) - 1) + b"\n" + line)

        assert bounds.enforce(10**9, 1 << 30, NOW + timedelta(seconds=1)) == 2 * 12_288

    def test_a_day_that_somebody_moved_away_counts_no_more(self, folder, tmp_path):
        self.write(folder, "a", "b", day="2026-05-01")
        self.write(folder, "c")
        bounds = ImageBounds(folder / "images")
        bounds.enforce(10**9, 3 * 12_288, NOW)
        (folder / "images" / "2026-05-01").rename(tmp_path / "to train on")
        self.write(folder, "d", "e")

        assert bounds.enforce(10**9, 3 * 12_288, NOW) == 3 * 12_288
        assert self.present(folder) == ["c", "d", "e"]

    def test_a_day_that_is_moved_away_while_a_worker_writes_to_it_begins_anew(self, folder, tmp_path):
        writer = ImageWriter(folder)
        writer.write(bytes(10_000), replace(ACCEPTED, item="a"), "audit")
        writer.write(bytes(10_000), replace(ACCEPTED, item="b"), "audit")
        bounds = ImageBounds(folder / "images")
        bounds.enforce(10**9, 1 << 30, NOW)
        (today,) = (folder / "images").iterdir()
        today.rename(tmp_path / "to train on")
        writer.write(bytes(10_000), replace(ACCEPTED, item="c"), "audit")

        assert bounds.enforce(10**9, 1 << 30, NOW) == 12_288

    def test_two_workers_that_enforce_in_turns_agree(self, folder):
        first, second = ImageBounds(folder / "images"), ImageBounds(folder / "images")
        self.write(folder, *"abcd")
        first.enforce(10**9, 1 << 30, NOW)
        second.enforce(10**9, 2 * 12_288, NOW)
        third = ImageBounds(folder / "images")

        assert first.enforce(10**9, 2 * 12_288, NOW) == third.enforce(10**9, 2 * 12_288, NOW) == 2 * 12_288
        assert self.present(folder) == ["c", "d"]

    def test_an_index_names_no_file_elsewhere(self, folder, tmp_path):
        victim = tmp_path / "victim.image"
        victim.touch()
        self.write(folder, "a")
        (index,) = (folder / "images").glob("*/index-*")
        with index.open("ab") as file:
            for name in ("../../../victim.image", str(victim)):
                file.write(KeptImage(name, "i", 1, "F", None, None, None, None, "audit", 5, 0).encode())
            file.write(b"[]\n{\nhalf a line")

        assert ImageBounds(folder / "images").enforce(10**9, 0, NOW) == 0
        assert victim.exists()
        assert files(folder) == []
