"""The number formats that networks are computed in."""

from typing import Literal

Precision = Literal["fp32", "bf16", "fp16", "int8"]
WantedPrecision = Literal["auto", "fp32", "bf16", "int8"]
WANTED_PRECISIONS: tuple[WantedPrecision, ...] = ("auto", "fp32", "bf16", "int8")
