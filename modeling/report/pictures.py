"""Pictures with their answers: cards of the page with thumbnails, and a sheet of many with captions as one PNG."""

# Shapes: H height, W width, C channels (1 or 3).
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import Evaluation, Mistake
from modeling.report.canvas import LIGHT, font_file
from modeling.report.content import LabelledPicture, Picture, ReportContent, Sample
from modeling.report.figures import score as certainty
from modeling.report.figures import shortened

MOST_PICTURES = 24
THUMBNAIL_PX = 128
_TINY_PX = 64  # up to here pixels are shown as they are, hard-edged and without loss
_CELL_PX = 160
_CAPTION_PX = 46
_GAP_PX = 16
_COLUMNS = 6
_SHEET_COMPRESSION = 4  # of zlib's 1 to 9

_DECISION_WORDS = {"accept": "accepted", "review": "to review", "reject": "rejected"}

Captioned = tuple[Picture | None, str, str]  # picture, then a line each in ink and in orange
MistakePicture = tuple[Mistake, Picture | None]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image of at most 128 pixels a side as a data URI; `tiny` ones are shown with hard-edged pixels."""

    source: str
    width: int
    height: int
    tiny: bool


@dataclass(frozen=True, slots=True)
class PictureCard:
    """A picture with its answer. `thumbnail` is None where the picture cannot be read; `accepted_wrong`: unseen."""

    name: str
    label: str
    predicted: str
    score: float
    decision: str | None
    right: bool
    thumbnail: Thumbnail | None

    @property
    def accepted_wrong(self) -> bool:
        """Whether this is a mistake that nobody would see."""
        return self.decision == "accept" and not self.right

    @property
    def decision_word(self) -> str | None:
        """The decision as the page says it."""
        return _DECISION_WORDS.get(self.decision, self.decision) if self.decision else None


@dataclass(frozen=True, slots=True)
class LabelledThumbnail:
    """A small picture with its name and label."""

    name: str
    label: str
    thumbnail: Thumbnail | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that show the same, with different labels; `kind` says how alike they are."""

    images: tuple[LabelledThumbnail, LabelledThumbnail]
    kind: str


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Pairs to look at, and how many more there are."""

    pairs: Sequence[Pair]
    num_more: int


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The most confident mistakes of `num_wrong`; `num_accepted` of the cards, None without thresholds."""

    num_wrong: int
    cards: Sequence[PictureCard]
    num_accepted: int | None


def mistake_pictures(content: ReportContent) -> list[MistakePicture]:
    """The most confident mistakes with their pictures, as many as a page shows."""
    mistakes = content.evaluation.mistakes[:MOST_PICTURES] if content.evaluation else ()
    return [(mistake, content.picture(mistake.index)) for mistake in mistakes]


def describe_mistakes(
    evaluation: Evaluation, pictures: Sequence[MistakePicture], calibration: Calibration | None
) -> Mistakes:
    """The mistakes, each with what the thresholds do to it."""

    def decision_on(mistake: Mistake) -> str | None:
        predicted = evaluation.labels.index(mistake.predicted)
        return calibration.decide(predicted, mistake.score) if calibration else None

    cards = [_card(mistake, decision_on(mistake), picture) for mistake, picture in pictures]
    num_accepted = None if calibration is None else sum(card.accepted_wrong for card in cards)
    return Mistakes(evaluation.num_images - evaluation.num_right, cards, num_accepted)


def sample_cards(samples: Sequence[Sample]) -> list[PictureCard]:
    """Some images with predictions, right and wrong."""
    return [_card(sample, sample.decision, sample.picture) for sample in samples[:MOST_PICTURES]]


def describe_doubtful(content: ReportContent) -> Doubtful:
    """The pairs of images whose labels cannot both be right."""
    pairs = [
        Pair((_labelled(one), _labelled(other)), "the same bytes" if exact else "nearly the same picture")
        for one, other, exact in content.doubtful
    ]
    return Doubtful(pairs, max(content.num_doubtful - len(pairs), 0))


def _labelled(shown: LabelledPicture) -> LabelledThumbnail:
    return LabelledThumbnail(shown.name, shown.label, thumbnail(shown.picture))


def _card(shown: Mistake | Sample, decision: str | None, picture: Picture | None) -> PictureCard:
    is_right = shown.predicted == shown.label
    return PictureCard(shown.name, shown.label, shown.predicted, shown.score, decision, is_right, thumbnail(picture))


def thumbnail(picture: Picture | None) -> Thumbnail | None:
    """The picture, small, with its own bytes; None where there is none."""
    if picture is None or not picture.size:
        return None
    image = _image_of(picture)
    tiny = max(image.size) <= _TINY_PX
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if tiny:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    source = data_uri(buffer.getvalue(), "png" if tiny else "jpeg")
    return Thumbnail(source, image.width, image.height, tiny)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of an image as an address that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def mistake_captions(pictures: Sequence[MistakePicture]) -> list[Captioned]:
    """The mistakes as a sheet of pictures shows them."""
    return [
        (picture, f"true: {mistake.label}", f"{mistake.predicted} {certainty(mistake.score)}")
        for mistake, picture in pictures
    ]


def sample_captions(samples: Sequence[Sample]) -> list[Captioned]:
    """The samples as a sheet of pictures shows them: the second line only where the answer is wrong."""
    return [
        (
            sample.picture,
            f"{sample.predicted} {certainty(sample.score)}",
            f"true: {sample.label}" if sample.label != sample.predicted else "",
        )
        for sample in samples[:MOST_PICTURES]
    ]


def montage(cells: Sequence[Captioned]) -> bytes:
    """Pictures beside each other, six in a row, each with two lines below it, as a PNG."""
    columns = min(len(cells), _COLUMNS)
    rows = -(-len(cells) // _COLUMNS)
    step = (_CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX)
    sheet = Image.new("RGB", (columns * step[0] + _GAP_PX, rows * step[1] + _GAP_PX), LIGHT.sheet)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(str(font_file()), 13, layout_engine=ImageFont.Layout.BASIC)
    for place, (picture, first, second) in enumerate(cells):
        left, top = _GAP_PX + place % columns * step[0], _GAP_PX + place // columns * step[1]
        draw.rectangle((left, top, left + _CELL_PX - 1, top + _CELL_PX - 1), fill=LIGHT.grid)
        if picture is not None and picture.size:
            image = _filled(_image_of(picture))
            sheet.paste(image, (left + (_CELL_PX - image.width) // 2, top + (_CELL_PX - image.height) // 2))
        for line, (caption, colour) in enumerate(((first, LIGHT.ink), (second, LIGHT.wrong))):
            at = (left, top + _CELL_PX + 6 + 18 * line)
            draw.text(at, _fitting(caption, font), fill=colour, font=font)
    buffer = io.BytesIO()
    # In full colour: photographs suffer from less. The strongest compression takes three times as long for 3 % of it.
    sheet.save(buffer, "PNG", compress_level=_SHEET_COMPRESSION)
    return buffer.getvalue()


def _image_of(picture: Picture) -> Image.Image:
    """Pixels as an image, grey or colour."""
    pixels_HWC = np.ascontiguousarray(picture)
    return Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1 else pixels_HWC)


def _filled(image: Image.Image) -> Image.Image:
    """The image as large as its cell allows."""
    scale = _CELL_PX / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    tiny = max(image.size) <= _TINY_PX
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def _fitting(caption: str, font: ImageFont.FreeTypeFont) -> str:
    """The caption on one line, short enough for its cell."""
    line = " ".join(caption.split()).encode("utf-8", "replace").decode()
    longest = len(line)
    while longest > 1 and font.getlength(shortened(line, longest)) > _CELL_PX:
        longest -= 1
    return shortened(line, longest)
