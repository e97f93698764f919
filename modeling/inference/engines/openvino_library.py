"""OpenVINO without its telemetry: every import of OpenVINO goes through this module.

`import openvino` reports itself to an analytics host and keeps an id in the home folder, unless its module for that
cannot be imported.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: the import of it fails

import openvino  # noqa: E402  # after the line above
from openvino import opset13  # noqa: E402

__all__ = ["openvino", "opset13"]
