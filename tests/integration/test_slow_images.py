"""Images that take too long, and shards that are done carefully, against a real ledger with a fake classifier."""

import ctypes
from dataclasses import replace

import pytest

from modeling.inference import decoders
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.parts import read_trailer
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect
from tests.support.fakes import Bells, FakeClassifier, FakeModelCache, enter_job, exit_code_of, make_images, make_job
from tests.support.images import grey_png
from workers.classify import decode_clock
from workers.classify.journal import BATCH, SLOW
from workers.classify.slice import classify_slice
from workers.context import WorkerContext
from workers.finalize.finalize import end_job
from workers.hang_guard import hang_guard

pytestmark = pytest.mark.integration

BRIGHTNESS = [0, 10, 20, 240, 250, 100, 130, 200, 5, 77]
TOO_SLOW = Prediction(error_code="too_slow", error="decoding takes too long, also when the image is tried alone")


@pytest.fixture
def classifier():
    return FakeClassifier()


@pytest.fixture
def context(settings, ledger, classifier):
    return WorkerContext(settings, ledger, FakeModelCache(classifier), "w1", "cpu", Bells())


@pytest.fixture
def folder(settings, ledger, tmp_path):
    """Ten images in one shard, entered."""
    paths = make_images(tmp_path / "in", BRIGHTNESS)
    folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv", shard_size=10)
    enter_job(folder, ledger)
    return folder


@pytest.fixture
def slow_decoding(monkeypatch):
    """Makes images of some brightness take for ever, and the clock strict."""

    def install(*brightness):
        slow, decode = {grey_png(value) for value in brightness}, decoders.decode_image

        def decode_slowly(data, *args, **options):
            while data in slow:
                pass
            return decode(data, *args, **options)

        monkeypatch.setattr(decoders, "decode_image", decode_slowly)
        monkeypatch.setattr(decode_clock, "DECODE_S", 0.1)
        monkeypatch.setattr(decode_clock, "ALONE_FACTOR", 2)

    return install


def published(folder, context, tmp_path):
    end_job(folder.job, context)
    return {row.path: row.prediction for row in FORMATS["csv"].read(tmp_path / "out.csv")}


def undisturbed(folder, context, classifier, tmp_path):
    """The rows of the same images without any trouble."""
    other = make_job(
        context.settings, [f"{index:03d}.png" for index in range(10)], root=tmp_path / "in", output=tmp_path / "2.csv"
    )
    enter_job(other, context.ledger)
    classify_slice(other.job, context)
    end_job(other.job, context)
    classifier.batches.clear()
    return {row.path: row.prediction for row in FORMATS["csv"].read(tmp_path / "2.csv")}


def note(folder, *last_notes):
    """Journals of workers that ended, each at one of `last_notes`, of a crash where it is not slow."""
    folder.journals.mkdir(exist_ok=True)
    for fence, (what, index) in enumerate(last_notes):
        crash = "" if what == SLOW else "Fatal Python error: Aborted\n"
        (folder.journals / f"00000000.{fence}.jsonl").write_text(f'["{what}", {index}]\n{crash}')


def test_images_that_hang_get_their_rows_and_cost_their_neighbours_and_the_shard_nothing(
    folder, context, classifier, ledger, server, slow_decoding, tmp_path
):
    expected = undisturbed(folder, context, classifier, tmp_path)
    slow_decoding(130, 5)
    context.settings = context.settings.model_copy(update={"lease_s": 0.6, "max_attempts": 3})
    codes = []

    def fresh_slice():
        classify_slice(folder.job, replace(context, ledger=Ledger(connect(server.url)), worker="w2", ring=Bells()))

    while ledger.record(folder.job).state in ("queued", "running"):
        codes.append(exit_code_of(fresh_slice))

    rows = published(folder, context, tmp_path)
    assert rows == expected | {"006.png": TOO_SLOW, "008.png": TOO_SLOW}
    assert (set(codes[:-1]), codes[-1]) == ({decode_clock.SLOW_EXIT_CODE}, 0)
    assert read_trailer(folder.parts, 0).num_stopped == 2


def test_an_image_that_was_too_slow_once_is_tried_alone_and_then_predicted_with_its_batch(
    folder, context, classifier, tmp_path
):
    expected = undisturbed(folder, context, classifier, tmp_path)
    note(folder, (SLOW, 2))

    classify_slice(folder.job, context)

    assert classifier.batches == [[20], BRIGHTNESS[:4], BRIGHTNESS[4:8], BRIGHTNESS[8:]]
    assert published(folder, context, tmp_path) == expected
    assert read_trailer(folder.parts, 0).num_stopped == 0


def test_a_batch_that_killed_has_each_image_decoded_once_and_predicted_alone_and_together(
    folder, context, classifier, monkeypatch, tmp_path
):
    expected = undisturbed(folder, context, classifier, tmp_path)
    note(folder, (BATCH, 4))
    decoded, decode = [], decoders.decode_image
    monkeypatch.setattr(
        decoders, "decode_image", lambda data, *args, **more: decoded.append(data) or decode(data, *args, **more)
    )

    classify_slice(folder.job, context)

    assert classifier.batches == [BRIGHTNESS[:4], [250], [100], [130], [200], BRIGHTNESS[4:8], BRIGHTNESS[8:]]
    assert decoded == [grey_png(value) for value in BRIGHTNESS]
    assert published(folder, context, tmp_path) == expected


def test_a_batch_that_kills_though_its_images_do_not_keeps_the_rows_that_they_got_alone(
    folder, context, classifier, tmp_path
):
    expected = undisturbed(folder, context, classifier, tmp_path)
    (tmp_path / "in" / "005.png").unlink()
    note(folder, (BATCH, 4), (BATCH, 4))

    classify_slice(folder.job, context)

    missing = Prediction(error_code="missing", error="there is no such file")
    assert classifier.batches == [BRIGHTNESS[:4], [250], [130], [200], BRIGHTNESS[8:]]
    assert published(folder, context, tmp_path) == expected | {"005.png": missing}


def test_every_image_of_a_careful_shard_is_a_sign_of_life(folder, context, classifier, monkeypatch):
    note(folder, (BATCH, 0))
    alive, batches_at = [], []
    monkeypatch.setattr("workers.leases.Leases.progressed", lambda leases: alive.append(1))
    classifier.before = lambda brightness: batches_at.append(len(alive))

    classify_slice(folder.job, context)

    assert len(alive) >= len(BRIGHTNESS) + 3
    assert batches_at == sorted(set(batches_at))


@pytest.mark.parametrize("native", [ctypes.PyDLL, ctypes.CDLL], ids=["with Python's lock", "without it"])
def test_an_image_whose_decoder_never_ends_in_native_code_is_found(
    native, folder, context, classifier, ledger, server, monkeypatch, tmp_path
):
    expected = undisturbed(folder, context, classifier, tmp_path)
    decode = decoders.decode_image

    def decode_image(data, *args, **options):
        if data == grey_png(130):
            native(None).pause()
        return decode(data, *args, **options)

    monkeypatch.setattr(decoders, "decode_image", decode_image)
    monkeypatch.setattr(decode_clock, "DECODE_S", 1e9)
    context.settings = context.settings.model_copy(update={"lease_s": 0.6, "stall_s": 0.5, "max_attempts": 9})
    codes = []

    def guarded_slice():
        hang_guard.start(1.0)
        classify_slice(folder.job, replace(context, ledger=Ledger(connect(server.url)), worker="w2", ring=Bells()))

    while ledger.record(folder.job).state in ("queued", "running"):
        codes.append(exit_code_of(guarded_slice))

    assert published(folder, context, tmp_path) == expected | {"006.png": TOO_SLOW}
    assert codes[-1] == 0
    assert len([code for code in codes if code]) == 5
