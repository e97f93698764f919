"""How an operator wants images sorted; imports nothing, since help texts have the names."""

from typing import Literal, get_args

By = Literal["label", "decision", "label,decision"]
GROUPINGS: tuple[By, ...] = get_args(By)
Mode = Literal["link", "copy", "move"]
MODES: tuple[Mode, ...] = get_args(Mode)
