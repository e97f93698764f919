"""Shards whose workers die again and again: which image is poison, and which is not. Deaths are played, not died."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modeling.inference.decode_watch import DecodeWatch
from modeling.inference.decoders import Decoders
from orchestrator.contract.ledger.ledger import Claim
from tests.support.fakes import FakeClassifier
from tests.support.images import grey_png
from workers.classify.careful import Careful, predict_carefully
from workers.classify.decode_clock import ShardImage
from workers.classify.journal import Journal, Notes
from workers.classify.open_shard import OpenShard

JOB = "c261123-143355-7f3a2b"
MAX_ATTEMPTS = 20


class Killed(BaseException):
    """A process dies here."""


class Clock:
    """Stands for `DecodeClock`, which no image is slow for."""

    alone = False
    watch = DecodeWatch()


class Shard:
    """A shard of images of these brightnesses, whose workers may die. batch_size: of its batches."""

    def __init__(self, folder: Path, brightness: list[int], batch_size: int = 4) -> None:
        self._journals = folder / "journals"
        self._images = [grey_png(each) for each in brightness]
        self._brightness = brightness
        self._batch_size = batch_size
        self.attempt = 2
        self.tried: list[list[int]] = []

    def done_by(self, *, dies: Callable[[list[int]], bool]) -> list[str | None]:
        """Predict with one worker after another until one lives; `dies` is asked for each prediction. The codes."""
        while True:
            self.attempt += 1
            shard = OpenShard(Claim(JOB, 0, self.attempt, self.attempt), [str(n) for n in self._brightness], False)
            journal = Journal(self._journals, shard.claim)
            evidence = journal.evidence()
            if evidence.num_deaths(self.attempt) - evidence.num_explained >= MAX_ATTEMPTS:
                return ["given_up"] * len(self._images)
            try:
                predict_carefully(shard, self._sources(shard), journal, self._careful(dies))
            except Killed:
                self._forget_the_end()
            else:
                return [row.prediction.error_code for row in shard.rows]

    def _careful(self, dies: Callable[[list[int]], bool]) -> Careful:
        def before(brightness: list[int]) -> None:
            self.tried.append(brightness)
            if dies(brightness):
                raise Killed

        classifier = FakeClassifier(before=before)
        classifier.batch_size = self._batch_size
        decoders = Decoders(classifier.preprocessing, 1 << 20, 1, None, Clock.watch)
        clock: Any = Clock()
        return Careful(classifier, 1, decoders, clock, lambda: None)

    def _sources(self, shard: OpenShard) -> list[ShardImage]:
        images = self._images
        return [ShardImage(partial(images.__getitem__, n)).of(shard.claim, n) for n in range(len(images))]

    def _forget_the_end(self) -> None:
        """A process that is killed does not close its journal."""
        path = self._journals / f"00000000.{self.attempt}.jsonl"
        path.write_text(path.read_text().removesuffix('["finished", 0]\n'))


BRIGHTNESS = [10, 20, 30, 40, 110, 120, 130, 140, 210, 220]


@pytest.mark.parametrize(
    ("bombs", "batch_size"),
    [([130], 4), ([10], 4), ([220], 4), ([120, 130], 4), ([110, 120, 130, 140], 4), ([10, 20, 30, 40], 4), ([10], 1),
     ([10, 120, 220], 3), ([210, 220], 4)],
)  # fmt: skip
def test_images_that_get_their_worker_killed_are_found_and_cost_no_other_image_its_row(bombs, batch_size, tmp_path):
    shard = Shard(tmp_path, BRIGHTNESS, batch_size)

    codes = shard.done_by(dies=lambda brightness: bool(set(bombs) & set(brightness)))

    assert codes == ["crashed_worker" if each in bombs else None for each in BRIGHTNESS]


def test_a_lone_image_is_not_poison_for_kills_but_its_shard_is_given_up(tmp_path):
    assert Shard(tmp_path, [10]).done_by(dies=lambda _: True) == ["given_up"]


@pytest.mark.parametrize("seed", range(40))
def test_workers_that_are_killed_at_random_make_no_image_poison(seed, tmp_path):
    chance = random.Random(seed)
    shard = Shard(tmp_path, BRIGHTNESS)

    codes = shard.done_by(dies=lambda _: chance.random() < 0.1)

    assert codes == [None] * len(BRIGHTNESS)


@pytest.mark.parametrize("trial", range(1, 16))
def test_workers_that_are_killed_at_the_same_moment_of_their_lives_make_no_image_poison(trial, tmp_path, monkeypatch):
    shard = Shard(tmp_path, BRIGHTNESS)
    note, deaths = Notes.trying, 0
    lives: Counter[int] = Counter()

    def trying(notes: Notes, what: str, index: int) -> None:
        nonlocal deaths
        note(notes, what, index)
        lives[shard.attempt] += 1
        if lives[shard.attempt] == trial and what != "finished" and deaths < MAX_ATTEMPTS - 4:
            deaths += 1
            raise Killed

    monkeypatch.setattr(Notes, "trying", trying)

    assert shard.done_by(dies=lambda _: False) == [None] * len(BRIGHTNESS)
