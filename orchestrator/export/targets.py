"""What an export is for; imports nothing, since help texts have the names."""

from typing import Literal, get_args

Target = Literal["csv", "json", "jsonl", "label-studio", "cvat", "coco", "ultralytics"]
TARGETS: tuple[Target, ...] = get_args(Target)
