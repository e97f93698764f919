import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDS_TORCH = {"augmentation", "classifier", "networks", "training"}
FREE = sorted({path.stem for path in (ROOT / "modeling").glob("*.py")} - NEEDS_TORCH - {"__init__"})


@pytest.mark.parametrize("forbidden", [("torch", "torchvision", "celery", "redis", "click")])
def test_everything_but_networks_and_training_imports_without_torch(forbidden):
    imports = "; ".join(f"import modeling.{module}" for module in FREE)
    code = f"import sys; {imports}; print([name for name in {forbidden!r} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


def test_training_and_predicting_never_import_torchvision():
    code = "import sys, modeling.training, modeling.classifier; print('torchvision' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "False\n"
