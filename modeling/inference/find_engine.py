"""Finds the fastest engine for a model on this machine: builds each, checks its answers, and times it."""

# Shapes: B images of a batch, L labels.
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modeling.errors import ModelingError, is_out_of_memory, reason_of, takes_no_writes, trouble_of
from modeling.images.progress import Report
from modeling.inference.classifier import Classifier
from modeling.inference.engines.choice import GPU, Choice
from modeling.inference.engines.engine import Engine
from modeling.inference.engines.hardware import hardware_name
from modeling.inference.engines.precision import Precision, WantedPrecision
from modeling.inference.timing import (
    best_batch_size,
    compute_logits,
    images_per_sec,
    random_images,
    speeds_by_batch_size,
)
from modeling.registry.card import ModelCard

logger = logging.getLogger(__name__)

_MANY, _FEW = 32, 8  # images in the batch that compares engines: torch may take a second for many
_ON_GPU = 64  # images: with smaller batches a GPU waits for kernel launches
_ODD = 3  # images: a batch size that no engine is prepared for
_SMALL_PIXELS = 64 * 64
FAST_ENOUGH = 20_000  # images/s by torch alone: reading and decoding are slower; building an engine takes seconds
MIN_SPEEDUP = 1.1  # an engine with a smaller one is not worth its rounding
_TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.05, "int8": float("inf")}  # int8 was checked against its own bound
MEASURING = "measuring engines, once for this model and machine"


class OtherAnswersError(ModelingError):
    """An engine's logits are not those of torch for a model's weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """An engine that could be used: its name, its precision, and how to build it."""

    name: str
    precision: Precision
    make: Callable[[], Engine]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The engine that was found.

    by_weights: one was refused for its answers, which depend on the weights. lacking: one could not be built or timed,
    because memory or a disk was full; another time it may be the fastest.
    """

    choice: Choice
    classifier: Classifier
    by_weights: bool
    lacking: bool


def find(classifier: Classifier, options: Sequence[Option], precision: WantedPrecision, report: Report) -> Found:
    """The fastest engine, its best batch size, and its decoder.

    Raises:
        ModelingError: no engine can be used.
    """
    report(MEASURING)
    fastest = _compare(classifier, options, precision, report)
    images_BHWC = _random_images(classifier)[:_ODD]
    expected_BL = classifier.reference.logits(images_BHWC)

    def sized(size: int) -> Classifier:
        report(f"{MEASURING}: {fastest.name} in batches of {size}")
        engine = fastest.engine.for_batch_size(size)
        if engine is not classifier.reference:
            _check_logits(engine.logits(images_BHWC[:size]), expected_BL[:size], fastest.precision)
        return classifier.on(engine)

    try:
        sizes = speeds_by_batch_size(sized, _clock(fastest.engine))
    except OtherAnswersError as err:  # few images may show what more of them hide
        return _without(fastest.name, err, classifier, options, precision, report)
    choice = Choice(
        engine=fastest.name,
        batch_size=best_batch_size(sizes),
        hardware=hardware_name(classifier.device),
        images_per_sec=fastest.speeds,
        batch_sizes={str(size): round(speed, 1) for size, speed in sizes.items()},
        refused=fastest.refused,
    )
    if classifier.device.type == "cuda":
        report(f"{MEASURING}: decoding on the GPU and on the cores")
        choice = with_decoder(choice, classifier)
    engine = fastest.engine.for_batch_size(choice.batch_size)
    return Found(choice, with_engine(classifier, engine, choice), fastest.by_weights, fastest.lacking)


def _without(
    name: str,
    err: OtherAnswersError,
    classifier: Classifier,
    options: Sequence[Option],
    precision: WantedPrecision,
    report: Report,
) -> Found:
    """What is found among the other engines, if there are any."""
    others = [option for option in options if option.name != name]
    if not others:
        raise err
    found = find(classifier, others, precision, report)
    choice = replace(found.choice, refused={name: reason_of(err)} | found.choice.refused)
    return replace(found, choice=choice, by_weights=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Fastest:
    """The engine that was found; speeds: images per second of all engines; refused: why others cannot be used.

    by_weights, lacking: as in `Found`.
    """

    name: str
    precision: Precision
    engine: Engine
    speeds: dict[str, float]
    refused: dict[str, str]
    by_weights: bool
    lacking: bool


def _compare(classifier: Classifier, options: Sequence[Option], precision: WantedPrecision, report: Report) -> _Fastest:
    """Build each engine, check its logits and time it; the fastest, unless an earlier one is about as fast.

    Raises:
        ModelingError: no engine can be used.
        OSError: files or memory are short now: no engine loses its place for that.
    """
    speeds: dict[str, float] = {}
    refused: dict[str, str] = {}
    by_weights, lacking = False, False
    best: tuple[float, Option, Engine] | None = None
    for option in options:
        if best is not None and best[0] > FAST_ENOUGH:
            break
        report(f"{MEASURING}: {option.name}")
        try:
            engine = option.make()
            speed = _speed(classifier, engine, option.precision)
        except Exception as err:  # whatever a compiler raises: torch remains
            if trouble_of(err):
                raise  # the choice is final: no engine loses its place because files or memory are short now
            logger.warning("%s cannot be used: %s", option.name, reason_of(err))
            refused[option.name] = reason_of(err)
            by_weights |= isinstance(err, OtherAnswersError)
            lacking |= lacks_room(err)
            continue
        speeds[option.name] = round(speed, 1)
        if best is None or speed > MIN_SPEEDUP * best[0]:
            best = (speed, option, engine)
    if best is None:
        raise ModelingError(_unavailable(precision, refused, classifier.card))
    _, option, engine = best
    return _Fastest(option.name, option.precision, engine, speeds, refused, by_weights, lacking)


def lacks_room(err: Exception) -> bool:
    """Whether an engine failed because memory, such as that of a GPU, or a disk is full now."""
    return is_out_of_memory(err) or takes_no_writes(err)


def checked(classifier: Classifier, engine: Engine, precision: Precision, batch_size: int) -> Engine:
    """The engine for a batch size, if its logits are those of torch for these weights, at that size and at others.

    Raises:
        OtherAnswersError: they are not; says by how much.
    """
    images_BHWC = _random_images(classifier)[:batch_size]
    check_answers(classifier, engine, precision, images_BHWC[:_ODD])
    sized = engine.for_batch_size(batch_size)
    check_answers(classifier, sized, precision, images_BHWC)
    return sized


def _speed(classifier: Classifier, engine: Engine, precision: Precision) -> float:
    """Images per second of an engine whose logits are those of torch."""
    images_BHWC = _random_images(classifier)
    sized = checked(classifier, engine, precision, len(images_BHWC))
    return images_per_sec(partial(compute_logits, sized), images_BHWC, sized.num_streams)


def _clock(engine: Engine) -> Callable[[], float] | None:
    """The seconds of one stream that OpenVINO computes; None for torch, whose threads wait for each other."""
    return (lambda: time.process_time() / engine.num_streams) if engine.name.startswith("openvino") else None


def with_decoder(choice: Choice, classifier: Classifier) -> Choice:
    """The choice with the decoder that is fastest on this machine."""
    from modeling.inference.nvjpeg import fastest_decoder  # imports nvJPEG, which only GPUs need

    name, speeds, refused = fastest_decoder(classifier.preprocessing, classifier.device, choice.batch_size)
    return replace(choice, decoder=name, decoded_per_sec=speeds, refused=choice.refused | refused)


def with_engine(classifier: Classifier, engine: Engine, choice: Choice) -> Classifier:
    """The classifier as it was chosen."""
    if choice.decoder != GPU:
        return classifier.on(engine, choice.batch_size, choice.speed)
    from modeling.inference.nvjpeg import NvJpeg

    batch_decoder = NvJpeg(classifier.preprocessing, classifier.device)
    return classifier.on(engine, choice.batch_size, choice.speed, batch_decoder)


def _unavailable(precision: str, refused: dict[str, str], card: ModelCard) -> str:
    if refused:
        return f"precision {precision} cannot be used: {'; '.join(f'{name}: {why}' for name, why in refused.items())}"
    hints = {"int8": f"the model {card.why_no_int8()}", "bf16": "this processor has no instructions for it"}
    hint = hints.get(precision, "no engine offers it")
    return f"precision {precision} cannot be used here: {hint}; give --precision auto"


def check_answers(classifier: Classifier, engine: Engine, precision: Precision, images_BHWC: NDArray[np.uint8]) -> None:
    """Check that an engine's logits are those of torch, except for rounding.

    Raises:
        OtherAnswersError: they are not; says by how much.
    """
    if engine is classifier.reference:
        return
    _check_logits(engine.logits(images_BHWC), classifier.reference.logits(images_BHWC), precision)


def _check_logits(found_BL: Tensor, expected_BL: Tensor, precision: Precision) -> None:
    found_BL, expected_BL = found_BL.cpu(), expected_BL.cpu()
    difference = float((found_BL - expected_BL).abs().max() / expected_BL.abs().max().clamp(min=1e-6))
    if not difference <= _TOLERANCE[precision]:
        raise OtherAnswersError(
            f"logits differ by {difference:.2g} of the largest, {_TOLERANCE[precision]:g} is allowed"
        )


def few_random_images(classifier: Classifier) -> NDArray[np.uint8]:
    """A batch of a size that no engine is prepared for."""
    return _random_images(classifier)[:_ODD]


def _random_images(classifier: Classifier) -> NDArray[np.uint8]:
    height, width, _ = classifier.preprocessing.shape
    if classifier.device.type == "cuda":
        return random_images(classifier.preprocessing, _ON_GPU)
    return random_images(classifier.preprocessing, _MANY if height * width <= _SMALL_PIXELS else _FEW)
