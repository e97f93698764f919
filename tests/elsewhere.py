"""Run the tests that compute as on other processors.

`make test-elsewhere`, or `python -m tests.elsewhere [NAME ...]`; PYTEST_ADDOPTS is added to pytest's arguments.
Libraries choose their code by the processor that they find; environment variables make them choose older code.
`lowest` and `avx2` limit all of them together, as an old processor does, and are what is run unless names are given;
each of the other names limits one library, to find out which is to blame.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "tests/modeling",
    *(f"tests/orchestrator/{name}" for name in ("demo", "duplicates", "gateway/inference", "pages", "sheets")),
    *(f"tests/orchestrator/cli/test_{name}.py" for name in ("models", "models_compare", "predict", "read")),
    "tests/orchestrator/jobs/test_forecast.py",
    *(f"tests/workers/{name}" for name in ("classify", "lines", "test_context.py")),
]
PYTEST = [sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", "--dist", "worksteal"]
LIMIT_S = 600.0  # of a test: older code is slower
DEFAULT = ("lowest", "avx2")
# What NumPy has code for beyond what it always needs, and this processor can run: it complains of any other name.
NUMPY = [name for name in __cpu_dispatch__ if __cpu_features__[name]]

LIBRARIES = {
    "aten": {"ATEN_CPU_CAPABILITY": "default"},  # torch's own kernels
    "mkl": {"MKL_CBWR": "COMPATIBLE"},  # torch's matrix products
    # torch's convolutions, and OpenVINO. The second is for its own code, which computes nonsense where the two differ.
    "onednn": {"ONEDNN_MAX_CPU_ISA": "SSE41", "OV_CPU_MAX_ISA": "SSE41"},
    "openblas": {"OPENBLAS_CORETYPE": "Prescott"},  # NumPy's matrix products
    "numpy": {"NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY)},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "AVX2"},
    "openblas-avx2": {"OPENBLAS_CORETYPE": "Haswell"},
    "numpy-avx2": {"NPY_DISABLE_CPU_FEATURES": " ".join(name for name in NUMPY if name != "X86_V3")},
}
ENVIRONMENTS = {
    "lowest": {key: value for name in LIBRARIES if "-" not in name for key, value in LIBRARIES[name].items()},
    "avx2": {key: value for name in LIBRARIES if "-" in name for key, value in LIBRARIES[name].items()},
    **LIBRARIES,
}
# What the libraries report about themselves; printed, so that a reader sees which code ran.
REPORT = """
import torch
from modeling.inference.engines.openvino_library import openvino
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print("torch:", torch.backends.cpu.get_cpu_capability())
print("NumPy:", [name for name in __cpu_dispatch__ if __cpu_features__[name]])
print("OpenVINO:", openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
"""


def main(names: list[str]) -> int:
    """Run the tests in each environment; 1 if any fails."""
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        print(f"no environment {', '.join(unknown)}; choose of {', '.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    outcomes = {name: run(name) for name in names or DEFAULT}
    print(*(f"{name}: {outcome}" for name, outcome in outcomes.items()), sep="\n")
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def run(name: str) -> str:
    """Run the tests in one environment; returns what came of it."""
    limits = ENVIRONMENTS[name]
    if name.endswith("avx2") and not __cpu_features__["AVX2"]:
        return "skipped: this processor has no AVX2"
    print(f"== {name}: {' '.join(f'{key}={value!r}' for key, value in limits.items())}", flush=True)
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", REPORT], cwd=ROOT, env=os.environ | limits, check=True)
    command = [*PYTEST, "--timeout", str(LIMIT_S), *TESTS]
    failed = subprocess.run(command, cwd=ROOT, env=os.environ | limits, check=False).returncode
    return f"{'failed' if failed else 'passed'} in {time.monotonic() - started:.0f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
