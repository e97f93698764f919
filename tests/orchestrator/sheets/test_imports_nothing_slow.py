"""What commands after the answer import."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_sheets_and_differences_come_without_torch_celery_and_plots():
    modules = "orchestrator.sheets.sheet, orchestrator.sheets.terminal, orchestrator.jobs.results"
    modules += ", orchestrator.diff.differences, orchestrator.diff.write, orchestrator.jobs.row_images"
    slow = ("torch", "celery", "matplotlib")
    code = f"import sys, {modules}; print([name for name in {slow} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
