"""What the folders of a data set are, and its parts, as an operator may say it; imports nothing, for help texts."""

from typing import Literal, get_args

Layout = Literal["classes", "parts"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
DataPart = Literal["all", "train", "validation", "test"]
PARTS: tuple[DataPart, ...] = get_args(DataPart)
