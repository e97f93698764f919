"""ONNX Runtime without its telemetry: every import of it goes through this module.

It reports the process, sessions and models to a host of its maker, and keeps an id and a data base in the home folder,
unless this variable is set before it is initialised.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # after the line above
from onnxruntime import quantization

__all__ = ["onnxruntime", "quantization"]
