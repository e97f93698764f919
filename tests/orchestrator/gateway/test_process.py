"""What the gateway's process loads: neither torch nor Celery, which cost seconds and hundreds of megabytes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from pathlib import Path
from orchestrator.contract.settings import Settings
from orchestrator.gateway.app import create_app
from orchestrator.gateway.context import GatewayContext, GatewayOptions

create_app(GatewayContext(Settings(home=Path("home")), GatewayOptions()))
print(sorted({"torch", "celery", "matplotlib", "openvino", "onnxruntime"} & set(sys.modules)))
"""


def test_the_gateway_loads_neither_torch_nor_celery(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")
