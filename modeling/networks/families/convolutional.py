"""Small convolutional networks."""

from torch import nn

from modeling.errors import ArchitectureError
from modeling.images.preprocessing import Preprocessing

_CNN_FILTERS, _CNN_HIDDEN = 16, 128
_CNN_POOLED = 14  # px: the largest side after pooling, which keeps the dense head small
_PYRAMID_FILTERS, _PYRAMID_HIDDEN = (32, 48, 64), 128
_PYRAMID_POOLED = 3
_LENET_FILTERS, _LENET_HIDDEN = (32, 64), 256
_LENET_POOLED = 5


def cnn(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """One convolution, pooling and a dense head."""
    _check_sides(preprocessing, "cnn", smallest=4)
    pool, height, width = _pool_to(preprocessing.height, preprocessing.width, _CNN_POOLED)
    return nn.Sequential(
        nn.Conv2d(preprocessing.channels, _CNN_FILTERS, kernel_size=5, padding=2),
        pool,
        nn.ReLU(),  # after pooling: the same result for a quarter of the work
        nn.Flatten(),
        nn.Linear(_CNN_FILTERS * height * width, _CNN_HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(_CNN_HIDDEN, num_classes),
    )


def cnn_pyramid(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """Three convolutions with pooling between them and rising numbers of filters, and a dense head."""
    _check_sides(preprocessing, "cnn_pyramid", smallest=8)
    first, second, third = _PYRAMID_FILTERS
    pool, height, width = _pool_to(preprocessing.height // 4, preprocessing.width // 4, _PYRAMID_POOLED)
    return nn.Sequential(
        nn.Conv2d(preprocessing.channels, first, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Conv2d(second, third, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(third),
        nn.ReLU(),
        pool,
        nn.Flatten(),
        nn.Linear(third * height * width, _PYRAMID_HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(_PYRAMID_HIDDEN, num_classes),
    )


def lenet(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """LeNet's layers (LeCun et al. 1998) with more filters, ReLU and max pooling."""
    _check_sides(preprocessing, "lenet", smallest=16)
    first, second = _LENET_FILTERS
    height, width = ((side - 4) // 2 - 4 for side in (preprocessing.height, preprocessing.width))
    pool, height, width = _pool_to(height, width, _LENET_POOLED)
    return nn.Sequential(
        nn.Conv2d(preprocessing.channels, first, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=5),
        nn.ReLU(),
        pool,
        nn.Flatten(),
        nn.Linear(second * height * width, _LENET_HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(_LENET_HIDDEN, num_classes),
    )


def _check_sides(preprocessing: Preprocessing, name: str, smallest: int) -> None:
    height, width = preprocessing.height, preprocessing.width
    if min(height, width) < smallest:
        raise ArchitectureError(
            f"a {name} needs images of at least {smallest} x {smallest} px, not {height} x {width}; "
            "give a larger image size"
        )


def _pool_to(height: int, width: int, longest: int) -> tuple[nn.MaxPool2d, int, int]:
    """A max pooling by at least 2 that gives sides of at most `longest` px; and the height and width after it."""
    kernel_height, kernel_width = (min(side, max(2, -(-side // longest))) for side in (height, width))
    return nn.MaxPool2d((kernel_height, kernel_width)), height // kernel_height, width // kernel_width
