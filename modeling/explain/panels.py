"""From results to sheets: one function a kind of panel, with the text on it."""

# Shapes: F filters or maps, H height, W width, C channels, L labels.
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.explain import drawing
from modeling.explain.drawing import Scale, Section, Sheet, Tile
from modeling.explain.features import FeatureMaps, HeatMap
from modeling.explain.filters import LearnedFilters, WeightImages, filter_pictures
from modeling.explain.ideal import Ascent, IdealImage
from modeling.explain.robustness import Flip

Floats = NDArray[np.float32]

MOST_LABELS, MOST_FILTERS, MOST_RESPONSES, MOST_MAPS, MOST_FLIPS = 60, 64, 14, 24, 8  # drawn on a sheet
_FILTERS_A_ROW = 14  # two for each fixed filter below
_BRIGHT_SHARE = 99.8  # per cent of the values that the colour scale spans; larger ones get the strongest colour


@dataclass(frozen=True, slots=True, eq=False)
class PredictedImage:
    """An image as the network sees it, with the network's answer. score: in [0, 1], as the model reports it."""

    name: str
    pixels_HWC: NDArray[np.uint8]
    label: str
    score: float

    @property
    def tile(self) -> Tile:
        """The image over its name and its answer."""
        return Tile(drawing.as_colours(self.pixels_HWC), self.name, answer(self.label, self.score))


def answer(label: str, score: float) -> str:
    """A label with its score in per cent; only a score of exactly 1 is 100 %."""
    return f"{label}, {_percent(score)}"


def weights_sheet(model: str, found: WeightImages, labels: Sequence[str], chosen: Sequence[int]) -> Sheet:
    """A weight image for each chosen label."""
    shown = list(chosen)[:MOST_LABELS]
    colour = found.weights_LHWC.shape[3] == 3
    brightness_LHW = found.weights_LHWC.sum(axis=3)
    largest = _largest(brightness_LHW[shown])
    tiles = [Tile(drawing.around_zero(brightness_LHW[i], largest), labels[i]) for i in shown]
    columns = _columns(len(shown))
    sections = [Section(tiles, columns, 220, "Brightness: all colours together" if colour else "")]
    if colour:
        pictures = filter_pictures(found.weights_LHWC)
        coloured = [Tile(drawing.photograph(pictures[i]), labels[i]) for i in shown]
        sections.append(Section(coloured, columns, 220, "Colour"))
    return Sheet(
        f"Weight images of {model}",
        sections,
        "The network adds up the pixels, each multiplied by its weight, and gives the label with the largest sum. "
        "A bright pixel on red speaks for the label, on blue against it; on white it does not matter. The weights are "
        "in pixel space (the network's own, divided by the spread that its preprocessing takes out), and all labels "
        f"share one scale. {_more(len(shown), len(chosen), 'labels')}"
        + ("In the colour pictures mid grey is zero, each by its own largest weight." if colour else ""),
        [Scale(drawing.AROUND_ZERO, f"against {-largest:.2g}", "0", f"+{largest:.2g} for the label")],
    )


def filters_sheet(model: str, learned: LearnedFilters, fixed: Mapping[str, Floats]) -> Sheet:
    """The learned filters of the first convolution, and the fixed ones below."""
    num_filters, height, width, channels = learned.kernels_FhwC.shape
    pictures = filter_pictures(learned.kernels_FhwC[:MOST_FILTERS])
    size = f"{num_filters} of {height} × {width} px{' in colour' if channels == 3 else ''}"
    return Sheet(
        f"Filters of {model}",
        [
            Section(
                [Tile(drawing.photograph(picture), str(i)) for i, picture in enumerate(pictures)],
                -(-len(pictures) // -(-len(pictures) // _FILTERS_A_ROW)),
                89,
                f"Learned: the first convolution, layer {learned.layer} ({size})",
            ),
            Section(_kernel_tiles(fixed), len(fixed), 200, "Fixed: edge filters, made by hand"),
        ],
        "A filter slides over the image and answers strongly where the image looks like it. Mid grey is weight zero, "
        "lighter counts for, darker against, each filter by its own largest weight. Learned filters that resemble the "
        "fixed ones look for edges; even ones look for brightness or colour. "
        f"{_more(len(pictures), num_filters, 'filters')}",
    )


def responses_sheet(
    predicted: PredictedImage,
    learned: LearnedFilters,
    learned_FHW: Floats,
    fixed: Mapping[str, Floats],
    responses: Mapping[str, Floats],
) -> Sheet:
    """The responses of fixed and learned filters to an image."""
    order = np.argsort(-np.abs(learned_FHW).mean(axis=(1, 2)), kind="stable")[:MOST_RESPONSES]
    pictures = filter_pictures(learned.kernels_FhwC)
    rows = []
    for start in range(0, len(order), len(fixed)):
        row = order[start : start + len(fixed)]
        heading = f"Learned: the strongest of layer {learned.layer}, and below each its response" if start == 0 else ""
        rows.append(Section([Tile(drawing.photograph(pictures[i]), str(i)) for i in row], len(fixed), 200, heading))
        rows.append(Section([Tile(_signed(learned_FHW[i])) for i in row], len(fixed), 200))
    return Sheet(
        f"Filters at work on {predicted.name}",
        [
            Section([predicted.tile], 1, 260),
            Section(_kernel_tiles(fixed), len(fixed), 200, "Fixed edge filters, and below each its response"),
            Section([Tile(_signed(responses[name])) for name in fixed], len(fixed), 200),
            *rows,
        ],
        "Red: the image looks like the filter there; blue: like its negative (dark and light exchanged); white: no "
        "response. Each response by its own largest value. Learned filters are shown without their bias.",
        [Scale(drawing.AROUND_ZERO, "like the negative", "0", "like the filter")],
    )


def features_sheet(predicted: PredictedImage, layers: Sequence[FeatureMaps]) -> Sheet:
    """The strongest maps of an image at each layer."""
    sections = [Section([predicted.tile], 1, 260)]
    for found in layers:
        num_maps, height, width = found.maps_FHW.shape
        shown = found.maps_FHW[:MOST_MAPS]
        signed = bool((shown < 0).any())
        tiles = [
            Tile(_signed(values) if signed else drawing.from_zero(values, _largest(values)), str(channel))
            for values, channel in zip(shown, found.channels_F, strict=False)
        ]
        what = f"the {len(shown)} strongest of {num_maps}" if len(shown) < num_maps else f"all {num_maps}"
        heading = f"Layer {found.layer}: {what} maps, {height} × {width} cells, strongest first"
        sections.append(Section(tiles, 8, 160, heading))
    return Sheet(
        f"Feature maps of {predicted.name}",
        sections,
        "What a layer makes of the image, one map a feature, each by its own largest value. Dark is nothing, bright is "
        "much; where a layer also gives negative numbers, red is above zero and blue below. Early layers show edges "
        "and colours at their places; late layers show few places where something larger was found.",
    )


def gradcam_sheet(predicted: PredictedImage, heats: Sequence[tuple[str, float, HeatMap]]) -> Sheet:
    """The image, and over it the heat of each label (label, score, heat map)."""
    picture = drawing.as_colours(predicted.pixels_HWC)
    tiles = [predicted.tile]
    for label, score, heat in heats:
        shown = f"where it speaks for {label}" if heat.heat_HW.any() else f"nothing speaks for {label}"
        tiles.append(Tile(drawing.overlay(picture, heat.heat_HW), shown, answer(label, score)))
    rows, columns = heats[0][2].cells_hw.shape
    return Sheet(
        f"Grad-CAM of {predicted.name}",
        [Section(tiles, min(len(tiles), 4), 440)],
        "Bright places raised the network's confidence in the label, dark ones did not. The layer (here "
        f"{heats[0][2].layer}) sees {rows} × {columns} cells, so places are rough. Each map is drawn by its own "
        "strongest place: two maps do not say which label is likelier, the scores do.",
        [Scale(drawing.FROM_ZERO, "nothing", "", "speaks most for the label")],
    )


def ideal_sheet(model: str, found: Sequence[IdealImage], labels: Sequence[str], ascent: Ascent) -> Sheet:
    """The ideal image of each label."""
    tiles = [
        Tile(drawing.as_colours(image.pixels_HWC), labels[image.label], f"score {_percent(image.score)}")
        for image in found
    ]
    side = 380 if len(tiles) <= 4 else 240
    start = "grey with a little noise" if ascent.start == "noise" else "flat grey"
    return Sheet(
        f"Ideal images of {model}",
        [Section(tiles, min(len(tiles), 3) if side == 380 else _columns(len(tiles)), side)],
        f"From {start} (seed {ascent.seed}) the pixels were changed step by step until the network was as sure of the "
        "label as it can be, smooth images preferred. What appears is what it looks for, not what the thing looks "
        "like; a label without a shape in its picture is known by texture, colour or chance.",
    )


def robustness_sheet(
    model: str,
    flips: Sequence[tuple[PredictedImage, Flip, float | None]],
    labels: Sequence[str],
    summary: str,
    second: str | None,
) -> Sheet:
    """One row an image: the image, the amplified change, their sum, and the image with noise of the same size."""
    sections = [_flip_row(image, flip, labels, multiple, second) for image, flip, multiple in flips[:MOST_FLIPS]]
    return Sheet(
        f"Robustness of {model}",
        sections,
        f"{summary} {_more(len(sections), len(flips), 'images')}The change is the smallest that iterated gradient sign "
        "found, so a cleverer attack may need less. Noise of the same size is the control: if it leaves the answer as "
        "it is, what flips it is the direction of the change, which dust or a scanner does not find by chance.",
    )


def _flip_row(
    predicted: PredictedImage, flip: Flip, labels: Sequence[str], multiple: float | None, second: str | None
) -> Section:
    picture = Tile(drawing.photograph(flip.unit_HWC), predicted.name, answer(labels[flip.label], flip.score))
    if flip.epsilon is None:
        return Section([picture], 4, 320, f"{predicted.name}: no change within the limit flips the answer")
    factor = 255 / (2 * flip.epsilon)
    changed_HW3, noisy_HW3 = (drawing.photograph(flip.unit_HWC + added) for added in (flip.change_HWC, flip.noise_HWC))
    tiles = [
        picture,
        Tile(drawing.photograph(0.5 + factor * flip.change_HWC), f"the change, × {factor:.0f}", "mid grey: none"),
        Tile(changed_HW3, "image + change", answer(labels[flip.flipped], flip.flipped_score)),
        Tile(noisy_HW3, "image + noise as large", f"{flip.num_noise_flips} of {flip.num_noises} noises flip it"),
    ]
    saved = "" if flip.survives_saving else " (lost when saved as a file)"
    heading = f"{flip.epsilon:.2g} grey levels of 255 flip the answer{saved}{_fooled(multiple, second)}"
    return Section(tiles, 4, 320, heading)


def _fooled(multiple: float | None, second: str | None) -> str:
    if second is None:
        return ""
    if multiple is None:
        return f"; {second} is not fooled, even 8 times as strong"
    return f"; {second} is fooled" + (", too" if multiple == 1 else f" at {multiple:.0f} times the strength")


def _kernel_tiles(kernels: Mapping[str, Floats]) -> list[Tile]:
    pictures = [(name, filter_pictures(kernel[None, :, :, None])[0]) for name, kernel in kernels.items()]
    return [Tile(drawing.photograph(picture), *name.split(", ")) for name, picture in pictures]


def _percent(score: float) -> str:
    percent = f"{100 * score:.1f}"
    return f"{'over 99.9' if percent == '100.0' and score < 1 else percent} %"


def _signed(values_HW: Floats) -> drawing.Colours:
    return drawing.around_zero(values_HW, _largest(values_HW))


def _largest(values: Floats) -> float:
    """The absolute value that gets the full colour: only the very largest values exceed it."""
    return float(np.percentile(np.abs(values), _BRIGHT_SHARE)) or float(np.abs(values).max())


def _columns(num_tiles: int) -> int:
    """Tiles a row, so that rows are of equal length: 10 labels are two rows of five."""
    num_rows = max(1, round(math.sqrt(num_tiles / 2.5)))
    return -(-num_tiles // num_rows)


def _more(num_shown: int, num_all: int, what: str) -> str:
    return f"Shown are {num_shown} of {num_all} {what}. " if num_shown < num_all else ""
