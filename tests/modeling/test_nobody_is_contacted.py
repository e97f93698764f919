"""No library that we import reports itself to anybody; the demo's test holds the same of whole jobs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.watched import Watched

ROOT = Path(__file__).parents[2]
DOORS = {
    "openvino": ROOT / "modeling" / "inference" / "engines" / "openvino_library.py",
    "onnxruntime": ROOT / "modeling" / "networks" / "onnxruntime_library.py",
}
HEAVY = ("modeling.inference.engines.openvino_engine", "modeling.training.int8", "workers.tasks", "orchestrator.cli")


def run(code: str, watched: Watched) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=watched.environment, check=True, capture_output=True)


def test_importing_every_library_contacts_nobody_and_leaves_no_file_in_the_home_folder(tmp_path):
    watched = Watched(tmp_path)

    run(f"import {', '.join(HEAVY)}, torchvision, matplotlib, openvino.tools.ovc", watched)

    assert watched.contacted() == []
    assert [name for name in watched.left_in_home() if not name.endswith((".cache", ".config", "matplotlib"))] == []


def test_a_lookup_of_another_host_is_seen(tmp_path):
    watched = Watched(tmp_path)

    run(
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('pigeonhole.invalid', 80)",
        watched,
    )

    [line] = watched.contacted()
    assert line.startswith("socket.getaddrinfo pigeonhole.invalid")


def test_a_session_of_onnx_runtime_leaves_no_id_of_this_machine(tmp_path):
    """Its telemetry is code of its own that no hook of Python sees; it starts with an id and a data base of events."""
    watched = Watched(tmp_path)

    run(
        "from modeling.networks.onnxruntime_library import onnxruntime\n"
        "import onnx\n"
        "value = onnx.helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, [1])\n"
        "node = onnx.helper.make_node('Identity', ['x'], ['y'])\n"
        "made = onnx.helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [1])\n"
        "graph = onnx.helper.make_graph([node], 'g', [value], [made])\n"
        "model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 20)], ir_version=10)\n"
        "onnxruntime.InferenceSession(model.SerializeToString())",
        watched,
    )

    assert watched.left_in_home() == []


@pytest.mark.parametrize(("library", "others"), [("openvino", ["nncf"]), ("onnxruntime", [])])
def test_a_library_that_reports_itself_is_imported_in_one_place(library: str, others: list[str]):
    importing = [
        path
        for package in ("modeling", "orchestrator", "workers", "pigeonhole")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _imported(node)
        if name.partition(".")[0] in (library, *others)
    ]

    assert set(importing) == {DOORS[library]}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
