"""The body of a response to a request for inference: JSON, then the bytes of binary tensors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.gateway.inference.tensors import OutputTensor

_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: making it costs some microseconds


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """What a request is answered with."""

    model_name: str
    model_version: str
    id: str
    outputs: Sequence[OutputTensor]
    parameters: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> tuple[bytes, int | None]:
        """The body, and the length of its JSON where bytes follow."""
        parts: list[bytes] = []
        outputs = [_encoded(output, parts) for output in self.outputs]
        value: dict[str, Any] = {"model_name": self.model_name, "model_version": self.model_version, "outputs": outputs}
        if self.id:
            value["id"] = self.id
        if self.parameters:
            value["parameters"] = self.parameters
        header = _encode(value).encode()
        return b"".join([header, *parts]), len(header) if parts else None


def _encoded(output: OutputTensor, parts: list[bytes]) -> dict[str, Any]:
    """An output in JSON; its bytes are added to `parts`."""
    value: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
    if output.binary:
        data = output.to_bytes()
        parts.append(data)
        value["parameters"] = {"binary_data_size": len(data)}
    else:
        value["data"] = output.values
    return value
