"""Which network a training takes where the operator names none; needs no torch.

The one place of the rule: facts about the data, the weights at hand and a quality go in; a network, its weights, what
is trained, and the reason come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modeling.durable import STRICT
from modeling.networks.architectures import get_architecture
from modeling.networks.pretrained.at_hand import WeightsAtHand
from modeling.networks.pretrained.torchvision_files import BY_ARCHITECTURE
from modeling.networks.quality import Quality

SMALL_SIDE = 64  # px: up to here a small network of ours sees all that there is
HOW_TO_GET_WEIGHTS = (
    f"copy a file such as {BY_ARCHITECTURE['mobilenet_v2'].file} from a machine that has it (torchvision keeps it in "
    "~/.cache/torch/hub/checkpoints), then `pigeonhole weights import FILE`"
)
# benchmarks/results/2026-11-29-defaults-2-cores.json: cats_dogs/default/0 and cats_dogs/no-weights/0
_WITH_WEIGHTS = "with 1,400 photographs 0.99 right instead of 0.89, in a minute instead of half an hour"
MIN_CLASSES = 100  # of weights that are taken unasked: those of fewer classes know one kind of images
# Multiply-adds (billions) of all images' ways through a backbone that a quality affords: 1,400 photographs through
# mobilenet_v2 are 420, and take a quarter of a minute on two cores; 200,000 through resnet50 take an hour of a GPU.
MOST_WORK: dict[Quality, float] = {"fast": 2_000, "good": 20_000, "best": 200_000}
FINE_TUNING_EPOCHS: dict[Quality, int | None] = {"fast": None, "good": None, "best": 3}

# From scratch, a network sees so many images, each several times if there are few, but at least its recipe's epochs.
SHOWN: dict[Quality, int] = {"fast": 20_000, "good": 60_000, "best": 120_000}
MOST_EPOCHS = 100
PHOTOGRAPH_SIDE: dict[Quality, int] = {"fast": 48, "good": 64, "best": 96}  # px that a network from scratch sees


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known of the data before any image is decoded.

    num_images: to learn from. median_side: px; median of the images' longer sides. channels: 1 if all are grey.
    mirroring_matters: a mirrored image may be one of another class; looked at only where it decides something.
    """

    num_images: int
    num_classes: int
    median_side: int
    channels: Literal[1, 3]
    mirroring_matters: bool = False

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """A network for some data.

    weights: to start from; None: it is trained from scratch.
    epochs: None: those of the recipe; with weights: none, only a new last layer is fitted on their features.
    image_size: px; None: the architecture's or the data's.
    reason: why, as a sentence. advice: what would be better, and how to get it; empty: nothing.
    """

    architecture: str
    weights: WeightsAtHand | None
    epochs: int | None
    image_size: int | None
    reason: str
    advice: str = ""


def choose_network(facts: DataFacts, at_hand: Sequence[WeightsAtHand], quality: Quality) -> NetworkChoice:
    """The network for these data."""
    if facts.median_side <= SMALL_SIDE:
        return _small(facts, quality)
    backbone = choose_backbone(at_hand, facts.num_images, quality)
    return _photographs(facts, quality) if backbone is None else _from_weights(facts, backbone, quality)


def _small(facts: DataFacts, quality: Quality) -> NetworkChoice:
    """One of our small networks."""
    images = f"the median image has {facts.median_side} px a side"
    if facts.channels == 1 or facts.mirroring_matters:
        architecture = "cnn_pyramid" if quality == "fast" else "glyphnet"
        why = "no colour" if facts.channels == 1 else "may be of another class if mirrored"
        reason = f"{images} and {why}, where a small network that does not mirror images is best"
    else:
        architecture = "lenet" if quality == "fast" else "speednet"
        reason = f"{images}, where a small network is best"
    return NetworkChoice(architecture, None, _epochs(architecture, facts.num_images, quality), None, reason)


def _epochs(architecture: str, num_images: int, quality: Quality) -> int | None:
    """Epochs of a network from scratch; None: its recipe's."""
    usual = get_architecture(architecture).recipe.epochs
    least = 2 * usual if quality == "best" else usual
    epochs = max(least, min(MOST_EPOCHS, SHOWN[quality] // max(1, num_images)))
    return None if epochs == usual else epochs


def choose_backbone(at_hand: Sequence[WeightsAtHand], num_images: int, quality: Quality) -> WeightsAtHand | None:
    """The best of the weights at hand that the quality affords for so many images, else the cheapest; None: no use."""
    known = [weights for weights in at_hand if _is_backbone(weights)]
    affordable = [weights for weights in known if _gflops(weights) * num_images <= MOST_WORK[quality]]
    if affordable:
        return max(affordable, key=lambda weights: BY_ARCHITECTURE[weights.architecture].top1)  # the first of equals
    return min(known, key=_gflops, default=None)


def _is_backbone(weights: WeightsAtHand) -> bool:
    """Whether weights are of a network for photographs, and know many kinds of them."""
    known = get_architecture(weights.architecture)
    enough = weights.num_classes is None or weights.num_classes >= MIN_CLASSES
    return known.family == "torchvision" and weights.architecture in BY_ARCHITECTURE and enough


def _gflops(weights: WeightsAtHand) -> float:
    return BY_ARCHITECTURE[weights.architecture].gflops


def takes_weights(facts: DataFacts) -> bool:
    """Whether the weights at hand matter for these data: finding them may take seconds."""
    return facts.median_side > SMALL_SIDE


def _from_weights(facts: DataFacts, weights: WeightsAtHand, quality: Quality) -> NetworkChoice:
    """A pre-trained backbone."""
    epochs = FINE_TUNING_EPOCHS[quality]
    reason = (
        f"the median image has {facts.median_side} px a side, and features that were learnt on many photographs beat "
        "those learnt on few"
    )
    return NetworkChoice(weights.architecture, weights, epochs, None, reason)


def _photographs(facts: DataFacts, quality: Quality) -> NetworkChoice:
    """A strong network from scratch: of ours, which learns from few images."""
    reason = f"the median image has {facts.median_side} px a side, and no pre-trained weights for it are at hand"
    advice = f"pre-trained weights would be better and quicker ({_WITH_WEIGHTS}): {HOW_TO_GET_WEIGHTS}, and train again"
    epochs = _epochs("speednet", facts.num_images, quality)
    return NetworkChoice("speednet", None, epochs, PHOTOGRAPH_SIDE[quality], reason, advice)
