"""What the folders of a data set are, as an operator may say it; imports nothing, for requests and commands."""

from typing import Literal, get_args

Layout = Literal["classes", "parts"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
