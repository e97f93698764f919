import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Where torch lives; everything else is for the operator's side, too.
NEEDS_TORCH = {
    "augmentation", "classifier", "exchange", "explain", "fit", "model_folder", "networks", "training",
    "training_data", "training_transfer", "transfer", "summary",
}  # fmt: skip
FREE = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "modeling").rglob("*.py")
    if path.relative_to(ROOT / "modeling").parts[0].removesuffix(".py") not in NEEDS_TORCH | {"__init__"}
    and path.name != "__init__.py"
)


@pytest.mark.parametrize("forbidden", [("torch", "torchvision", "celery", "redis", "click")])
def test_everything_but_networks_and_training_imports_without_torch(forbidden):
    imports = "; ".join(f"import {module}" for module in FREE)
    code = f"import sys; {imports}; print([name for name in {forbidden!r} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


def test_training_and_predicting_never_import_torchvision():
    code = "import sys, modeling.training, modeling.classifier; print('torchvision' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "False\n"
