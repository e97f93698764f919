"""One slice of a classify job against a real ledger, with a fake classifier."""

import contextlib
import errno
import os
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import redis

from modeling.errors import ModelFormatError, ModelNotFoundError
from modeling.inference.engines.torch_engine import TorchEngine
from modeling.inference.prediction import Prediction
from modeling.metrics.calibration import Calibration
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.listing import SourceFacts, read_shard
from orchestrator.contract.jobs.parts import open_part, part_path, read_trailer, write_part
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.contract.jobs.sidecar import parse_line
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.stages import STAGES
from orchestrator.contract.ledger.turns import Turn
from orchestrator.contract.server import connect
from orchestrator.jobs.follow import parse_event
from tests.support.fakes import (
    Bells,
    FakeClassifier,
    FakeModelCache,
    dies_at_step,
    enter_job,
    exit_code_of,
    make_images,
    make_job,
    predict_brightness,
    write_fake_parts,
)
from tests.support.published_models import publish_model
from tests.support.server import wait_until
from workers import source_folder
from workers.classify import read, source
from workers.classify import slice as classify
from workers.classify.gated import shorter_batches
from workers.classify.journal import BATCH, IMAGE
from workers.classify.slice import classify_slice
from workers.context import ModelCache, WorkerContext
from workers.finalize.finalize import end_job
from workers.leases import STALLED_EXIT_CODE
from workers.trouble import is_waited_for
from workers.turns import work_on

pytestmark = pytest.mark.integration

BRIGHTNESS = [0, 10, 20, 240, 250, 100, 130, 200, 5, 77]
SHORT_S = 0.05


@pytest.fixture
def bells():
    return Bells()


@pytest.fixture
def classifier():
    return FakeClassifier()


@pytest.fixture
def context(settings, ledger, bells, classifier):
    return WorkerContext(settings, ledger, FakeModelCache(classifier), "w1", "cpu", bells)


@pytest.fixture
def folder(settings, ledger, tmp_path):
    """Ten images in shards of four, entered."""
    paths = make_images(tmp_path / "in", BRIGHTNESS)
    folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv")
    enter_job(folder, ledger)
    return folder


def rows(folder, tmp_path):
    """The rows of all parts, as a manifest would hold them."""
    path, encoder = tmp_path / "joined.csv", FORMATS["csv"]
    with path.open("wb") as file:
        file.write(encoder.header({}))
        for shard in range(3):
            file.write(part_bytes(folder, shard))
    return list(encoder.read(path))


def part_bytes(folder, shard):
    """The rows of a part, without its trailer, which has times."""
    return part_path(folder.parts, shard).read_bytes()[: read_trailer(folder.parts, shard).rows_bytes]


def sidecar(folder, shard):
    """The sidecar's lines of a part."""
    file, trailer = open_part(folder.parts, shard)
    with file:
        file.seek(trailer.rows_bytes + 1)
        return [parse_line(line, "the part") for line in file.read(trailer.sidecar_bytes).splitlines()]


def expected(brightness, **failures):
    """The rows with scores of six digits, as the manifest has them."""
    answers = []
    for index, value in enumerate(brightness):
        prediction = predict_brightness(value)
        scores = tuple(round(score, 6) for score in prediction.scores)
        name = f"{index:03d}.png"
        answers.append(Row(name, failures.get(f"_{index}", replace(prediction, scores=scores))))
    return answers


def claim_and_die(ledger, folder, times):
    """Let workers claim all three shards and die, `times` times."""
    for _ in range(times):
        claims = [ledger.claim(folder.job, "dead", 60) for _ in range(3)]
        ledger.renew(folder.job, claims, 0)  # runs out at once


def all_expired(ledger, key):
    seconds, microseconds = ledger.client.time()
    return ledger.client.zcount(key, seconds * 1000 + microseconds // 1000, "+inf") == 0


def test_a_slice_works_through_the_whole_job_and_rings_for_its_end(
    folder, context, ledger, bells, classifier, tmp_path
):
    ledger.live_workers.heartbeat("w1", {"host": "h"})

    classify_slice(folder.job, context)

    record = ledger.record(folder.job)
    assert rows(folder, tmp_path) == expected(BRIGHTNESS)
    assert (record.state, record.num_done, record.shards_done, record.num_failed) == ("finalizing", 10, 3, 0)
    assert bells.rung == [("finalize", folder.job)]
    assert classifier.seen == BRIGHTNESS
    assert ledger.live_workers.workers()[0].num_images == 10


def test_what_takes_seconds_before_the_first_image_is_in_the_jobs_record_until_it_is_done(folder, context, ledger):
    seen = []
    context.models.on_load = lambda: seen.append(ledger.record(folder.job).progress)

    classify_slice(folder.job, context)

    assert [parse_event(each) for each in seen] == [{"event": "note", "text": "measuring engines"}]
    assert ledger.record(folder.job).progress == ""


def test_parts_are_the_same_to_the_byte_while_a_line_is_open(settings, ledger, bells, tmp_path, monkeypatch):
    version = publish_model(settings.models, "digits")
    pin = ModelPin(
        name=version.name, number=1, digest=version.digest, preprocessing_digest=version.card().preprocessing.digest
    )
    models = ModelCache(ModelStore(settings.models), "cpu", batch_size=8)
    models.get(pin).images_per_sec = 1.0  # its batches are worth shortening
    shorter = shorter_batches(models.get_for_pushes(pin))
    context = WorkerContext(settings, ledger, models, "w1", "cpu", bells)
    names = make_images(tmp_path / "in", range(0, 250, 10))
    sizes, parts = [], []
    logits = TorchEngine.logits
    monkeypatch.setattr(TorchEngine, "logits", lambda self, images: sizes.append(len(images)) or logits(self, images))

    for lines in (0, 1):
        context.gate._num_lines = lines
        folder = make_job(
            settings, names, root=tmp_path / "in", output=tmp_path / f"{lines}.csv", shard_size=16, model=pin
        )
        enter_job(folder, ledger)
        classify_slice(folder.job, context)
        parts.append([part_bytes(folder, shard) for shard in range(2)])

    assert parts[0] == parts[1]
    expected_sizes = [8, 8, 8, 1]
    assert sizes[:4] == expected_sizes
    if shorter is None:  # this processor gives no other size the same rows
        assert sizes[4:] == expected_sizes
    else:
        assert max(sizes[4:]) == shorter[0] < 8


def test_a_slice_with_nothing_to_do_rings_for_nothing(folder, context, ledger, bells):
    claims = [ledger.claim(folder.job, "w2", 60) for _ in range(3)]

    work_on("classify", Turn(folder.job), context)

    assert bells.rung == []
    assert ledger.renew(folder.job, claims, 60) == ("running", set())


def test_a_slice_whose_time_is_over_claims_no_more(folder, context, ledger):
    assert classify_slice(folder.job, context, Turn(folder.job, seconds=1e-9)) == 0
    assert ledger.record(folder.job).shards_done == 0


def test_a_slice_that_has_claimed_its_shards_rings_for_the_next(folder, context, bells, ledger):
    work_on("classify", Turn(folder.job, max_shards=2), context)

    assert bells.rung == [("classify", folder.job)]
    assert ledger.record(folder.job).shards_done == 2


def test_the_times_of_a_slice_are_in_its_trailers_and_the_ledger(folder, context, ledger):
    classify_slice(folder.job, context)

    trailers = [read_trailer(folder.parts, shard) for shard in range(3)]
    seconds = ledger.record(folder.job).stage_seconds
    assert {stage for trailer in trailers for stage in trailer.seconds} == set(STAGES) == set(seconds)
    assert {trailer.engine for trailer in trailers} == {"fake"}


def test_the_next_shard_is_predicted_while_a_part_is_being_written(folder, context, ledger, monkeypatch):
    second_predicted = threading.Event()

    def look(brightness: list[int]) -> None:
        if BRIGHTNESS[4] in brightness:  # the second shard's first image
            second_predicted.set()

    def write_late(*args, **kwargs) -> None:
        assert second_predicted.wait(timeout=10)
        write_part(*args, **kwargs)

    context.models = FakeModelCache(FakeClassifier(before=look))
    monkeypatch.setattr(classify, "write_part", write_late)

    classify_slice(folder.job, context)

    assert ledger.record(folder.job).shards_done == 3


@pytest.mark.parametrize("failing", [0, 2])
def test_an_error_of_writing_ends_the_slice_whichever_part_it_is(folder, context, ledger, monkeypatch, failing):
    def fail(parts, shard, *args, **kwargs) -> None:
        if shard == failing:
            raise RuntimeError("a bug")
        write_part(parts, shard, *args, **kwargs)

    monkeypatch.setattr(classify, "write_part", fail)

    with pytest.raises(RuntimeError, match="a bug"):
        classify_slice(folder.job, context)

    assert "RuntimeError: a bug" in ledger.record(folder.job).trouble
    assert read_trailer(folder.parts, failing) is None


def test_an_encoding_error_ends_the_job_and_is_not_tried_again(folder, context, ledger, bells, monkeypatch):
    monkeypatch.setattr(classify, "write_part", lambda *_, **__: "\udcff".encode("ascii"))

    classify_slice(folder.job, context)

    record = ledger.record(folder.job)
    assert record.state == "cancelling"
    assert "can't encode character" in record.error
    assert bells.rung == [("finalize", folder.job)]


def test_the_ledger_adds_up_the_times_in_the_trailers(folder, context, ledger):
    classify_slice(folder.job, context)

    trailers = [read_trailer(folder.parts, shard) for shard in range(3)]
    sums = {stage: sum(trailer.seconds[stage] for trailer in trailers) for stage in STAGES}
    assert ledger.record(folder.job).stage_seconds == pytest.approx(sums, abs=1e-5)


def test_bad_images_are_rows_and_cost_their_neighbours_nothing(folder, context, ledger, tmp_path):
    (tmp_path / "in" / "001.png").unlink()
    (tmp_path / "in" / "005.png").write_bytes(b"")
    (tmp_path / "in" / "006.png").unlink()
    (tmp_path / "in" / "006.png").symlink_to("/etc/passwd")
    (tmp_path / "in" / "009.png").unlink()
    os.mkfifo(tmp_path / "in" / "009.png")

    classify_slice(folder.job, context)

    result = rows(folder, tmp_path)
    codes = {row.path: row.prediction.error_code for row in result if not row.prediction.ok}
    assert codes == {"001.png": "missing", "005.png": "empty", "006.png": "outside_root", "009.png": "not_a_file"}
    assert [row for row in result if row.prediction.ok] == [
        row for row in expected(BRIGHTNESS) if row.path not in codes
    ]
    assert (ledger.record(folder.job).num_failed, ledger.record(folder.job).num_done) == (4, 10)
    lines = [line for shard in range(3) for line in sidecar(folder, shard)]
    assert [line.path for line in lines] == [row.path for row in result]
    assert {line.path for line in lines if line.as_read is None} == {"001.png", "006.png", "009.png"}
    assert lines[5].as_read == (0, (tmp_path / "in" / "005.png").stat().st_mtime_ns, None)


def test_a_calibrated_model_rejects_what_has_no_answer(folder, context, classifier, tmp_path):
    classifier.calibration = Calibration(1.0, 0.01, (0.9, 0.9), 0.5, 100, 0.0, 0.0, 0.0)
    (tmp_path / "in" / "005.png").write_bytes(b"")

    classify_slice(folder.job, context)

    empty = Prediction(error_code="empty", error="the file is empty (0 bytes)", decision="reject")
    assert rows(folder, tmp_path) == expected(BRIGHTNESS, _5=empty)
    assert read_trailer(folder.parts, 1).decisions == {"reject": 1}


def test_a_calibrated_model_rejects_what_was_given_up(folder, context, ledger, classifier):
    classifier.calibration = Calibration(1.0, 0.01, (0.9, 0.9), 0.5, 100, 0.0, 0.0, 0.0)
    context.settings = context.settings.model_copy(update={"max_attempts": 3})
    claim_and_die(ledger, folder, 3)
    note_kills(folder)

    classify_slice(folder.job, context)

    assert [read_trailer(folder.parts, shard).decisions for shard in range(3)] == [
        {"reject": 4}, {"reject": 4}, {"reject": 2},
    ]  # fmt: skip


def test_an_image_that_the_classifier_refuses_is_a_row(folder, context, classifier, tmp_path):
    def refuse(brightness):
        if 250 in brightness:
            raise ValueError("too bright")

    classifier.before = refuse

    classify_slice(folder.job, context)

    failed = Prediction(error_code="predict_failed", error="ValueError: too bright")
    assert rows(folder, tmp_path) == expected(BRIGHTNESS, _4=failed)


def test_a_drained_worker_hands_back_a_long_shard(folder, context, ledger, bells, classifier, monkeypatch):
    monkeypatch.setattr("workers.classify.slice.DRAIN_GRACE_S", -1.0)
    told = []
    classifier.before = told.append
    context.draining = lambda: bool(told)

    work_on("classify", Turn(folder.job), context)

    assert bells.rung == [("classify", folder.job)]
    assert ledger.record(folder.job).shards_done == 0
    again = [ledger.claim(folder.job, "w2", 60) for _ in range(3)]
    assert [(claim.shard, claim.attempt) for claim in again] == [(0, 1), (1, 1), (2, 1)]


def test_a_drained_worker_finishes_a_short_shard(folder, context, ledger, bells, classifier):
    told = []
    classifier.before = told.append
    context.draining = lambda: bool(told)

    work_on("classify", Turn(folder.job), context)

    record = ledger.record(folder.job)
    assert bells.rung == [("classify", folder.job)]
    assert 0 < record.shards_done < 3
    assert ledger.need(folder.job, 60) == "claim"


def test_a_cancel_stops_a_slice_between_batches(folder, context, ledger, bells, classifier):
    told, renew = [], ledger.renew

    def tell(*args):
        answer = renew(*args)
        told.append(answer[0])
        return answer

    def cancel(brightness):
        ledger.cancel(folder.job)
        wait_until(lambda: told[-2:] == ["cancelling"] * 2, what="the slice has heard of it")

    ledger.renew = tell
    classifier.before = cancel

    classify_slice(folder.job, context)

    assert ledger.record(folder.job).state == "cancelling"
    assert ledger.record(folder.job).shards_done == 0
    assert bells.rung == [("finalize", folder.job)]
    assert ledger.take_finalize_lease(folder.job, "w2", 60)[1] is not None  # nothing is held any more


def test_a_job_that_the_server_forgot_is_restored_and_done(folder, context, server, ledger, bells, tmp_path):
    server.empty()

    classify_slice(folder.job, context)

    assert rows(folder, tmp_path) == expected(BRIGHTNESS)
    assert ledger.record(folder.job).state == "finalizing"
    assert bells.rung == [("finalize", folder.job)]


def test_a_server_emptied_in_the_middle_costs_no_row(folder, context, server, ledger, classifier, tmp_path):
    def empty_once(brightness):
        classifier.before = lambda brightness: None
        server.empty()

    classifier.before = empty_once

    classify_slice(folder.job, context)
    while ledger.record(folder.job).state == "running":
        classify_slice(folder.job, context)

    record = ledger.record(folder.job)
    assert rows(folder, tmp_path) == expected(BRIGHTNESS)
    assert (record.state, record.num_done, record.shards_done) == ("finalizing", 10, 3)


def test_a_part_that_is_on_the_disk_is_committed_without_predicting(folder, context, ledger, bells, classifier):
    write_fake_parts(folder, [0, 2])
    before = [part_path(folder.parts, shard).read_bytes() for shard in (0, 2)]

    classify_slice(folder.job, context)

    assert classifier.seen == BRIGHTNESS[4:8]
    assert [part_path(folder.parts, shard).read_bytes() for shard in (0, 2)] == before
    assert (ledger.record(folder.job).num_done, ledger.record(folder.job).state) == (10, "finalizing")
    assert bells.rung == [("finalize", folder.job)]


def test_a_damaged_part_is_made_again(folder, context, classifier, tmp_path):
    write_fake_parts(folder, [1])
    part = part_path(folder.parts, 1)
    part.write_bytes(part.read_bytes()[:-7])

    classify_slice(folder.job, context)

    assert rows(folder, tmp_path) == expected(BRIGHTNESS)


def test_a_part_of_another_that_is_damaged_meanwhile_is_made_again(folder, context, ledger, classifier, tmp_path):
    def another_writes_rubbish(brightness):
        part_path(folder.parts, 0).write_bytes(b"rubbish")
        classifier.before = lambda brightness: None

    classifier.before = another_writes_rubbish

    classify_slice(folder.job, context)

    assert ledger.record(folder.job).state == "finalizing"
    assert rows(folder, tmp_path) == expected(BRIGHTNESS)


def test_a_server_that_stays_away_is_no_error_of_the_job_however_often_its_shard_was_tried(
    folder, context, ledger, classifier
):
    def patience_ends(brightness):
        raise redis.ConnectionError("the server is away")

    claim_and_die(ledger, folder, 2)
    classifier.before = patience_ends

    with pytest.raises(redis.ConnectionError):
        classify_slice(folder.job, context)

    assert (ledger.record(folder.job).state, ledger.record(folder.job).error) == ("running", "")


def test_a_model_that_is_gone_stops_the_job_with_its_reason(folder, context, ledger, bells):
    context.models.error = ModelNotFoundError("no model 'fake@1'")

    classify_slice(folder.job, context)

    assert (ledger.record(folder.job).state, ledger.record(folder.job).error) == ("cancelling", "no model 'fake@1'")
    assert bells.rung == [("finalize", folder.job)]


def test_an_error_before_any_shard_is_claimed_is_shown_as_the_jobs_trouble(folder, context, ledger):
    context.models.error = RuntimeError("no room for the model")

    with pytest.raises(RuntimeError, match="no room"):
        classify_slice(folder.job, context)

    record = ledger.record(folder.job)
    assert record.trouble == "worker w1: RuntimeError: no room for the model"
    assert not record.ended


def test_an_error_that_every_attempt_meets_fails_the_job_with_its_text(folder, context, ledger, bells, classifier):
    def broken(brightness):
        raise RuntimeError("the driver is gone")

    classifier.before = broken
    context = replace(context, settings=context.settings.model_copy(update={"lease_s": SHORT_S}))
    num_attempts = 0

    def attempt_fails_the_job():
        nonlocal num_attempts
        num_attempts += 1
        with contextlib.suppress(RuntimeError):
            classify_slice(folder.job, context)
        return ledger.record(folder.job).state == "cancelling"

    wait_until(attempt_fails_the_job, what="the job fails")

    assert ledger.record(folder.job).error == "RuntimeError: the driver is gone"
    assert num_attempts >= 3
    assert ledger.record(folder.job).shards_done == 0


def test_deaths_of_workers_are_no_errors_of_a_shard(folder, context, ledger, classifier):
    ledger.client.hset(f"{{pigeonhole}}:job:{folder.job}:attempts", mapping=dict.fromkeys(range(3), 2))

    def broken(brightness):
        raise RuntimeError("once")

    classifier.before = broken
    with pytest.raises(RuntimeError, match="once"):
        classify_slice(folder.job, context)

    assert ledger.record(folder.job).state == "running"


def test_a_gpu_whose_memory_others_hold_is_waited_for_at_no_attempt(folder, context, ledger, classifier):
    def full(brightness):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free")

    classifier.before = full

    with pytest.raises(MemoryError, match="CUDA out of memory") as caught:
        classify_slice(folder.job, context)

    assert is_waited_for(caught.value)
    assert [ledger.claim(folder.job, "w2", 60).attempt for _ in range(3)] == [1, 1, 1]


def test_a_damaged_listing_stops_the_job_with_its_reason(folder, context, ledger, bells):
    (folder.path / "listing").write_bytes(b"\0" * (folder.path / "listing").stat().st_size)

    classify_slice(folder.job, context)

    assert ledger.record(folder.job).state == "cancelling"
    assert "does not hold the 4 paths of shard" in ledger.record(folder.job).error
    assert bells.rung == [("finalize", folder.job)]


def test_a_job_that_has_ended_is_not_touched(folder, context, ledger, bells, classifier):
    ledger.cancel(folder.job)
    end_job(folder.job, context)

    classify_slice(folder.job, context)

    assert (classifier.seen, bells.rung, ledger.record(folder.job).state) == ([], [], "cancelled")


# Images that kill


def note_crashes(folder, shard, *last_notes):
    """Journals of workers that crashed: each at one of `last_notes`."""
    folder.journals.mkdir(exist_ok=True)
    for fence, (what, index) in enumerate(last_notes):
        crash = "Fatal Python error: Segmentation fault\n\nCurrent thread"
        (folder.journals / f"{shard:08d}.{fence}.jsonl").write_text(f'["{what}", {index}]\n{crash}')


def test_a_poison_image_gets_an_error_row_and_its_batch_mates_are_answered(
    folder, context, ledger, classifier, tmp_path
):
    claim_and_die(ledger, folder, 4)
    note_crashes(folder, 1, (BATCH, 0), (IMAGE, 2), (IMAGE, 2))
    (tmp_path / "in" / "006.png").unlink()  # reading it would give the code `missing`

    classify_slice(folder.job, context)

    crashed = Prediction(error_code="crashed_worker", error="a worker process died whenever it tried this image")
    assert rows(folder, tmp_path) == expected(BRIGHTNESS, _6=crashed)
    assert 130 not in classifier.seen


def test_the_images_of_a_batch_that_killed_are_tried_alone_with_notes(folder, context, ledger, classifier, tmp_path):
    claim_and_die(ledger, folder, 3)
    note_crashes(folder, 1, (BATCH, 0))
    batches = []
    classifier.before = batches.append

    classify_slice(folder.job, context)

    journals = list(folder.journals.glob("00000001.*.jsonl"))
    notes = max(journals, key=lambda path: int(path.name.split(".")[1])).read_text()
    assert notes.splitlines() == [
        '["image", 0]',
        '["image", 1]',
        '["image", 2]',
        '["image", 3]',
        '["batch", 0]',
        '["finished", 0]',
    ]
    assert [batch for batch in batches if batch[0] in BRIGHTNESS[4:8]] == [[250], [100], [130], [200], BRIGHTNESS[4:8]]
    assert rows(folder, tmp_path) == expected(BRIGHTNESS)


@pytest.mark.parametrize(
    ("signal_", "in_all"),
    [
        (signal.SIGSEGV, 5),  # two by chance, for all one knows; one in the batch; two alone
        (signal.SIGABRT, 5),
        (signal.SIGKILL, 8),  # somebody else may have done it: five alone, after others have passed
    ],
)
def test_a_worker_that_dies_of_an_image_leaves_the_note_that_names_it(
    folder, context, ledger, server, tmp_path, signal_, in_all
):
    def die(brightness):
        if 130 in brightness:
            os.kill(os.getpid(), signal_)

    def fresh_slice():
        other = replace_ledger(context, server)
        other.models = FakeModelCache(FakeClassifier(before=die))
        classify_slice(folder.job, other)

    context.settings = context.settings.model_copy(update={"lease_s": 0.2, "max_attempts": 20})
    num_deaths = 0
    while ledger.record(folder.job).state in ("queued", "running"):
        wait_until(lambda: all_expired(ledger, "{pigeonhole}:job:" + folder.job + ":leases"), what="leases run out")
        num_deaths += exit_code_of(fresh_slice) == -signal_

    crashed = Prediction(error_code="crashed_worker", error="a worker process died whenever it tried this image")
    assert rows(folder, tmp_path) == expected(BRIGHTNESS, _6=crashed)
    assert num_deaths == in_all


def note_kills(folder):
    """Each shard's third worker was killed at its first batch."""
    folder.journals.mkdir(exist_ok=True)
    for shard in range(3):
        (folder.journals / f"{shard:08d}.1.jsonl").write_text('["batch", 0]\n')


def test_claims_whose_answers_were_lost_give_no_shard_up(folder, context, ledger, classifier, tmp_path):
    context.settings = context.settings.model_copy(update={"max_attempts": 3})
    claim_and_die(ledger, folder, 5)

    classify_slice(folder.job, context)

    assert rows(folder, tmp_path) == expected(BRIGHTNESS)
    assert ledger.record(folder.job).shards_given_up == 0


def test_a_shard_that_killed_too_many_workers_is_given_up(folder, context, ledger, classifier, tmp_path):
    context.settings = context.settings.model_copy(update={"max_attempts": 3})
    claim_and_die(ledger, folder, 3)
    note_kills(folder)

    classify_slice(folder.job, context)

    given_up = [row.prediction for row in rows(folder, tmp_path)]
    assert given_up == [Prediction(error_code="given_up", error="3 workers died on its shard; it was given up")] * 10
    assert (ledger.record(folder.job).shards_given_up, classifier.seen) == (3, [])


# The worker or the storage is in trouble


class Failing:
    """Stands for os.open: some paths raise an error, for ever or some times."""

    def __init__(self, monkeypatch, number, wanted, times=10**9):
        self._open, self._number, self._wanted, self._left = os.open, number, wanted, times
        monkeypatch.setattr(os, "open", self)
        monkeypatch.setattr(read, "PAUSES_S", {"storage": (0.0, 0.0), "worker": (0.0, 0.0)})

    def __call__(self, path, *args, **options):
        if self._left and self._wanted(str(path)):
            self._left -= 1
            raise OSError(self._number, os.strerror(self._number), path)
        return self._open(path, *args, **options)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_note_costs_a_shard_that_killed_workers_nothing(
    folder, context, ledger, tmp_path, monkeypatch, number
):
    claim_and_die(ledger, folder, 3)

    with monkeypatch.context() as patch:
        Failing(patch, number, lambda path: path.startswith(str(folder.journals)))
        for _ in range(3):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                classify_slice(folder.job, context)
            assert is_waited_for(caught.value)
    assert (ledger.record(folder.job).state, os.listdir(folder.journals)) == ("running", [])

    classify_slice(folder.job, context)
    assert rows(folder, tmp_path) == expected(BRIGHTNESS)


def is_image(path):
    return path.endswith(".png")


@pytest.fixture
def walked(folder, tmp_path):
    """The job, with the lister's word that its files were found in the folder."""
    SourceFacts.of(str(tmp_path / "in"), walked=True).write(folder.path)
    return folder


def done_afterwards(folder, context, ledger, tmp_path):
    """Whether the job ends as if nothing had happened."""
    while ledger.record(folder.job).state != "finalizing":
        classify_slice(folder.job, context)
    return rows(folder, tmp_path) == expected(BRIGHTNESS) and ledger.record(folder.job).num_failed == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_worker_that_cannot_open_images_hands_its_shards_back_and_no_row_tells_of_it(
    walked, context, ledger, bells, tmp_path, monkeypatch, number
):
    with monkeypatch.context() as patch:
        Failing(patch, number, is_image)
        with pytest.raises(OSError, match=os.strerror(number)):
            classify_slice(walked.job, context)

    again = ledger.claim(walked.job, "w2", 60)
    assert (again.shard, again.attempt, ledger.record(walked.job).shards_done) == (0, 1, 0)
    ledger.release(again)
    assert done_afterwards(walked, context, ledger, tmp_path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_that_passes_costs_nothing(walked, context, ledger, tmp_path, monkeypatch, number):
    Failing(monkeypatch, number, is_image, times=2)

    classify_slice(walked.job, context)

    assert done_afterwards(walked, context, ledger, tmp_path)


def test_an_image_that_the_storage_cannot_read_is_a_row_if_others_can_be_read(
    walked, context, ledger, tmp_path, monkeypatch
):
    Failing(monkeypatch, errno.EIO, lambda path: path.endswith("005.png"))

    classify_slice(walked.job, context)

    failed = Prediction(error_code="unreadable", error="the file cannot be read: Input/output error")
    assert rows(walked, tmp_path) == expected(BRIGHTNESS, _5=failed)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN])
def test_a_storage_that_is_away_pauses_the_job_until_it_is_back(
    walked, context, ledger, bells, tmp_path, monkeypatch, number
):
    with monkeypatch.context() as patch:
        Failing(patch, number, is_image)
        classify_slice(walked.job, context)
        paused = ledger.record(walked.job)
        classify_slice(walked.job, context)

    assert (paused.state, paused.paused_by, paused.num_done, bells.rung) == ("paused", "storage", 0, [])
    assert "in is not what it was" in paused.paused_reason
    assert ledger.record(walked.job).state == "paused"
    assert walked.pause("storage").reason == paused.paused_reason
    assert done_afterwards(walked, context, ledger, tmp_path)
    assert walked.pause("storage") is None


@pytest.mark.parametrize("left_behind", [None, "an empty folder", "another folder"])
@pytest.mark.parametrize("is_list", [False, True])
def test_a_source_that_goes_away_in_the_middle_pauses_the_job_and_no_image_is_missing(
    folder, context, ledger, classifier, bells, tmp_path, left_behind, is_list
):
    SourceFacts.of(str(tmp_path / "in"), walked=not is_list).write(folder.path)

    def go_away(brightness):
        classifier.before = lambda brightness: None
        (tmp_path / "in").rename(tmp_path / "away")
        if left_behind:
            (tmp_path / "in").mkdir()
        if left_behind == "another folder":
            (tmp_path / "in" / "README").touch()

    classifier.before = go_away
    classify_slice(folder.job, context)
    paused = ledger.record(folder.job)
    classify_slice(folder.job, context)
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "in")

    assert (paused.state, paused.num_failed, bells.rung) == ("paused", 0, [])
    assert str(tmp_path / "in") in paused.paused_reason
    assert done_afterwards(folder, context, ledger, tmp_path)


def test_a_source_that_was_away_for_a_moment_is_read_again(walked, context, ledger, tmp_path, monkeypatch):
    Failing(monkeypatch, errno.ENOENT, lambda path: path.endswith(("001.png", "002.png")), times=2)

    classify_slice(walked.job, context)

    assert done_afterwards(walked, context, ledger, tmp_path)


def test_a_source_that_hangs_pauses_the_job_and_is_no_attempt(walked, context, ledger, server, tmp_path):
    """The process ends itself, as its threads may hang for hours."""

    def hang():
        other = replace_ledger(context, server)
        other.settings = context.settings.model_copy(update={"lease_s": 0.5})
        source.SILENT_S = 0.2
        whole = os.open

        def open_slowly(path, *args, **options):
            if is_image(str(path)):
                source_folder.ANSWER_S = 0.1
                threading.Event().wait()
            return whole(path, *args, **options)

        os.open = open_slowly
        classify_slice(walked.job, other)

    with pytest.raises(AssertionError, match=f"exit code {STALLED_EXIT_CODE}"):
        dies_at_step(10**9, hang, tmp_path)

    record = ledger.record(walked.job)
    assert (record.state, record.paused_reason) == ("paused", f"worker w2: {tmp_path / 'in'} does not answer")
    assert ledger.client.hgetall("{pigeonhole}:job:" + walked.job + ":attempts") == {}
    assert done_afterwards(walked, context, ledger, tmp_path)


def test_a_list_in_an_empty_folder_gets_its_rows(settings, ledger, context, tmp_path):
    (tmp_path / "empty").mkdir()
    folder = make_job(settings, ["a.png", "b.png"], root=tmp_path / "empty", output=tmp_path / "out.csv")
    SourceFacts.of(str(tmp_path / "empty"), walked=False).write(folder.path)
    enter_job(folder, ledger)

    classify_slice(folder.job, context)

    assert read_trailer(folder.parts, 0).errors == {"missing": 2}


def test_a_worker_that_cannot_see_the_source_leaves_the_job_to_one_that_may(walked, context, ledger, tmp_path):
    for worker in ("w1", "w2"):
        ledger.live_workers.heartbeat(worker, {"queues": "classify,finalize"})
    (tmp_path / "in").rename(tmp_path / "away")

    classify_slice(walked.job, context)
    alone = ledger.record(walked.job)
    classify_slice(walked.job, replace(context, worker="w2"))
    both = ledger.record(walked.job)

    reason = f"worker w1: does not see the folder {tmp_path / 'in'}"
    assert (alone.state, alone.trouble, alone.paused_reason) == ("queued", reason, "")
    assert (both.state, both.trouble, both.paused_reason) == ("paused", "", reason.replace("worker w1", "worker w2"))


def test_a_paused_job_is_cancelled_at_once(walked, context, ledger, tmp_path):
    (tmp_path / "in").rename(tmp_path / "away")
    classify_slice(walked.job, context)

    state = ledger.cancel(walked.job)
    end_job(walked.job, context)

    assert (state, walked.outcome().state, walked.pause("storage")) == ("cancelling", "cancelled", None)


def test_a_pause_outlives_a_server_that_lost_everything(walked, context, ledger, server, tmp_path):
    (tmp_path / "in").rename(tmp_path / "away")
    classify_slice(walked.job, context)
    before = ledger.record(walked.job)
    server.empty()

    classify_slice(walked.job, context)
    (tmp_path / "away").rename(tmp_path / "in")

    after = ledger.record(walked.job)
    assert (after.state, after.paused_by, after.paused_reason) == ("paused", "storage", before.paused_reason)
    assert done_afterwards(walked, context, ledger, tmp_path)


def test_images_that_a_source_has_lost_are_rows_also_in_a_shard_of_nothing_else(walked, context, ledger, tmp_path):
    for number in (0, 4, 5, 6, 7):
        (tmp_path / "in" / f"{number:03d}.png").unlink()

    classify_slice(walked.job, context)

    record = ledger.record(walked.job)
    assert (record.state, record.num_done, record.num_failed) == ("finalizing", 10, 5)
    assert read_trailer(walked.parts, 1).errors == {"missing": 4}


def test_a_worker_without_descriptors_hands_a_part_to_another(walked, context, ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(classify, "DISK_RETRY_S", 0.0)
    with monkeypatch.context() as patch:
        Failing(patch, errno.EMFILE, lambda path: path.endswith(".tmp"))
        with pytest.raises(OSError, match="Too many open files"):
            classify_slice(walked.job, context)

    record = ledger.record(walked.job)
    assert record.trouble == f"cannot write to {walked.parts}: Too many open files"
    assert ledger.claim(walked.job, "w2", 60).attempt == 1


def test_a_model_that_cannot_be_opened_for_want_of_descriptors_is_no_error_of_the_job(walked, context, ledger):
    def fail():
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as err:
            raise ModelFormatError("model.json: cannot be read (Too many open files)") from err

    try:
        fail()
    except ModelFormatError as err:
        context.models.error = err

    with pytest.raises(ModelFormatError):
        classify_slice(walked.job, context)

    assert ledger.record(walked.job).state == "queued"


# Every step


def test_a_death_at_any_step_costs_no_row_and_doubles_none(settings, server, ledger, context, tmp_path, monkeypatch):
    for module in ("workers.finalize.finalize", "workers.finalize.lease"):
        monkeypatch.setattr(f"{module}.FINALIZE_LEASE_S", 0.01)
    context.settings = settings.model_copy(update={"lease_s": SHORT_S})
    paths = make_images(tmp_path / "in", BRIGHTNESS[:4])
    manifests, step, dies = [], 0, True

    while dies:
        output = tmp_path / f"{step}.csv"
        folder = make_job(settings, paths, root=tmp_path / "in", output=output, shard_size=2)
        enter_job(folder, ledger)
        dies = dies_at_step(
            step, lambda job=folder.job: classify_slice(job, replace_ledger(context, server)), settings.home
        )

        def ended(folder=folder):
            classify_slice(folder.job, context)
            end_job(folder.job, context)
            return folder.outcome() is not None

        wait_until(ended, what="the job has ended")
        manifests.append(output.read_bytes())
        assert folder.outcome().state == "succeeded"
        step += 1

    assert step > 20
    assert set(manifests) == {manifests[-1]}
    assert list(FORMATS["csv"].read(tmp_path / "0.csv")) == expected(BRIGHTNESS[:4])


def replace_ledger(context, server):
    """The context of another process, with its own connection."""
    return replace(context, ledger=Ledger(connect(server.url)), worker="w2", ring=Bells())


def test_the_listing_of_these_jobs_is_the_images(folder):
    assert read_shard(folder.path, 2) == ["008.png", "009.png"]
