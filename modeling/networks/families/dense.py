"""Networks of dense layers on the flattened pixels."""

from torch import nn

from modeling.images.preprocessing import Preprocessing

_HIDDEN = 512


def perceptron(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """One dense layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_num_values(preprocessing), num_classes))


def mlp(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """Two hidden dense layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(_num_values(preprocessing), _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, _HIDDEN // 2),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(_HIDDEN // 2, num_classes),
    )


def _num_values(preprocessing: Preprocessing) -> int:
    return preprocessing.height * preprocessing.width * preprocessing.channels
