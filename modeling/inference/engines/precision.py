"""Numeric precisions of a network; imports nothing, since help texts name them."""

from typing import Literal, get_args

Precision = Literal["fp32", "bf16", "fp16", "int8"]
WantedPrecision = Literal["auto", "fp32", "bf16", "int8"]
WANTED_PRECISIONS: tuple[WantedPrecision, ...] = get_args(WantedPrecision)
