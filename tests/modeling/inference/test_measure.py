from dataclasses import replace

from modeling.errors import ImageError
from modeling.inference.measure import measure_pipeline
from modeling.inference.prediction import Prediction
from tests.support.fakes import FakeClassifier
from tests.support.images import grey_png


def refuse() -> bytes:
    raise ImageError("missing", "there is no such file")


def run(sources, classifier, *, limit_s=60.0):
    return measure_pipeline(sources, classifier, decode_threads=2, max_pixels=1000, limit_s=limit_s)


class DecidingClassifier(FakeClassifier):
    """Accepts light images and sends dark ones to people."""

    def predict(self, images, top_k, /) -> list[Prediction]:
        answers = super().predict(images, top_k)
        return [replace(each, decision="accept" if each.labels[0] == "light" else "review") for each in answers]


def test_a_measurement_counts_images_errors_and_decisions_and_times_every_stage():
    sources = [lambda value=value: grey_png(value) for value in (0, 250, 20, 240, 230)]

    found = run([*sources, refuse, lambda: b"", refuse], DecidingClassifier())

    assert (found.num_images, found.errors) == (8, {"empty": 1, "missing": 2})
    assert found.decisions == {"accept": 3, "review": 2}
    assert set(found.seconds) == {"read", "decode", "wait", "predict"}
    assert 0 < found.seconds["predict"] <= found.elapsed_s


def test_the_classifier_is_warm_before_the_clock_starts():
    classifier = FakeClassifier()

    run([lambda: grey_png(100)], classifier)

    assert classifier.seen == [0, 0, 0, 0, 100]  # a black batch of full size, then the image


def test_measuring_ends_after_its_limit_but_not_before_one_batch():
    assert run([lambda: grey_png(1)] * 400, FakeClassifier(), limit_s=0.0).num_images == 4
