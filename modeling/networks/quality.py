"""How much time a network that is chosen by itself may take; imports nothing, since help texts have the names."""

from typing import Literal, get_args

Quality = Literal["fast", "good", "best"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
DEFAULT_QUALITY: Quality = "good"
