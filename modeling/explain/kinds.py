"""What can be drawn of a model; imports nothing, since help texts have the names."""

from typing import Literal, get_args

Kind = Literal["weights", "filters", "features", "gradcam", "ideal", "robustness"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BY_DEFAULT: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "ideal")  # that takes many seconds for a label
