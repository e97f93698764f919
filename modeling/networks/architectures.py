"""The architectures by name, each with its default recipe."""

import difflib
from dataclasses import dataclass
from typing import Literal

from modeling.errors import ArchitectureError
from modeling.images.preprocessing import Preprocessing
from modeling.networks import recipes
from modeling.networks.recipes import Recipe
from modeling.networks.torchvision_table import ROWS, Entry

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network family.

    builder: "module:function", imported when a network is built (it needs torch).
    image_size: side in px of its square input; None: the size of the data.
    resize: px of the shorter side before the square is cropped; None: the whole image is stretched.
    head: dotted name of the last linear layer, which gives the logits.
    cam_layer: dotted name of the layer whose output BCHW is the last spatial feature map; None: it has none.
    weights: name of the enum member of torchvision's default pre-trained weights; None: there are none.
    smallest: px; the smallest side that it accepts. step: its side must be a multiple of this many px.
    mode: of the images that it is designed for; others work too.
    mean, std: of its default weights' preprocessing; empty: it has none.
    """

    name: str
    summary: str
    builder: str
    recipe: Recipe
    family: Literal["dense", "small", "torchvision"]
    head: str
    image_size: int | None = None
    resize: int | None = None
    cam_layer: str | None = None
    weights: str | None = None
    smallest: int = 1
    step: int = 1
    mode: Literal["L", "RGB"] = "RGB"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


_OWN = (
    Architecture(
        name="perceptron",
        summary="one dense layer from pixels to labels; the baseline",
        builder="modeling.networks.families.dense:perceptron",
        recipe=recipes.PERCEPTRON,
        family="dense",
        head="1",
        mode="L",
    ),
    Architecture(
        name="mlp",
        summary="two hidden dense layers",
        builder="modeling.networks.families.dense:mlp",
        recipe=recipes.MLP,
        family="dense",
        head="6",
        mode="L",
    ),
    Architecture(
        name="cnn",
        summary="one convolution, pooling and a dense head; strong on characters and digits",
        builder="modeling.networks.families.convolutional:cnn",
        recipe=recipes.CNN,
        family="small",
        head="7",
        mode="L",
        cam_layer="2",
    ),
    Architecture(
        name="cnn_pyramid",
        summary="three convolutions on smaller and smaller images; stronger on characters and digits",
        builder="modeling.networks.families.convolutional:cnn_pyramid",
        recipe=recipes.CNN_PYRAMID,
        family="small",
        head="16",
        mode="L",
        cam_layer="10",
    ),
    Architecture(
        name="lenet",
        summary="the classic: two 5 x 5 convolutions with pooling, two dense layers; for 32 x 32 colour",
        builder="modeling.networks.families.convolutional:lenet",
        recipe=recipes.LENET,
        family="small",
        head="10",
        image_size=32,
        cam_layer="4",
    ),
    Architecture(
        name="speednet",
        summary="the strongest small network for 32 x 32 colour, after the CIFAR-10 speed records",
        builder="modeling.networks.families.speednet:speednet",
        recipe=recipes.SPEEDNET,
        family="small",
        head="head",
        image_size=32,
        cam_layer="body",
    ),
    Architecture(
        name="glyphnet",
        summary="the strongest small network for characters and digits",
        builder="modeling.networks.families.speednet:glyphnet",
        recipe=recipes.GLYPHNET,
        family="small",
        head="head",
        mode="L",
        cam_layer="body",
    ),
)


def _of_torchvision(row: Entry) -> Architecture:
    return Architecture(
        name=row.name,
        summary=f"torchvision's {row.name}, for photographs of {row.image_size} px",
        builder=f"torchvision.models:{row.name}",
        recipe=recipes.PHOTOGRAPHS,
        family="torchvision",
        head=row.head,
        image_size=row.image_size,
        resize=row.resize,
        cam_layer=row.cam_layer,
        weights=row.weights[0],
        smallest=row.smallest,
        step=row.step,
        mean=(0.5,) * 3 if row.half else IMAGENET_MEAN,
        std=(0.5,) * 3 if row.half else IMAGENET_STD,
    )


_ALL = (*_OWN, *map(_of_torchvision, ROWS))
ARCHITECTURES: dict[str, Architecture] = {architecture.name: architecture for architecture in _ALL}


def get_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ArchitectureError: there is none; the message lists the choices.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(str(name).lower(), ARCHITECTURES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    own = ", ".join(architecture.name for architecture in _OWN)
    raise ArchitectureError(
        f"unknown architecture {name!r}; {hint}choose one of {own}, or one of torchvision's {len(ROWS)}, "
        "such as resnet18 or mobilenet_v2 (`pigeonhole models architectures` lists them)"
    )


def default_preprocessing(
    architecture: Architecture, image_size: int | None = None, mode: Literal["L", "RGB"] | None = None
) -> Preprocessing:
    """The default preprocessing of an architecture, independent of data.

    Sizes in px; another `image_size` crops the same proportion. Mean and deviation are those of its pre-trained
    weights, or 0.5.

    Raises:
        ArchitectureError: it has no default size, and `image_size` is not given.
    """
    side = image_size or architecture.image_size
    if side is None:
        raise ArchitectureError(f"{architecture.name} takes images of any size; give the image size in px")
    resize = None
    if architecture.resize is not None and architecture.image_size is not None:
        resize = max(side, round(architecture.resize * side / architecture.image_size))
    mode = mode or architecture.mode
    known = mode == "RGB"
    return Preprocessing(
        mode, side, side, resize, mean=architecture.mean if known else (), std=architecture.std if known else ()
    )
