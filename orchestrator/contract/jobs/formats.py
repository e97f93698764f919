"""Names of the formats of a manifest, which `rows.py` writes and reads; imports nothing, since help texts have them."""

from typing import Literal, get_args

Format = Literal["csv", "json", "jsonl"]
FORMAT_NAMES: tuple[Format, ...] = get_args(Format)
