"""How close the engines come to the processor's peak: the profile behind the ratios of `docs/speed.md`.

`python -m benchmarks.ceiling [--network resnet18,...]` measures the fastest product of large matrices by torch with
all cores, in fp32 and, where the processor has instructions for it, in bf16; then every engine of each network, with
its multiplications and additions a second as a share of that. What computes a convolution directly cannot do better
than 100 %; Winograd's algorithm, which saves multiplications, may. Random weights, random images.
A table for people, then JSON on the last line.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_networks import GREY, PHOTOGRAPHIC, publish_int8, publish_network
from modeling.inference.choose_engine import measure_engines
from modeling.inference.classifier import Classifier
from modeling.inference.timing import images_per_sec, random_images
from modeling.networks.summary import summarise

SIDE = 3072  # of the square matrices: far more than fits in any cache
MEASURE_S = 3.0
BATCH = 16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def peak_gflops(dtype: torch.dtype) -> float:
    """Billions of multiplications and additions per second in the fastest of several matrix products."""
    left, right = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    best_s, begun = float("inf"), time.perf_counter()
    torch.mm(left, right)
    while time.perf_counter() - begun < MEASURE_S:
        started = time.perf_counter()
        torch.mm(left, right)
        best_s = min(best_s, time.perf_counter() - started)
    return 2 * SIDE**3 / best_s / 1e9


def measure_network(models: Path, name: str, peaks: dict[str, float]) -> list[dict[str, Any]]:
    """Every engine of a network: images per second, operations per second, and the share of the peak."""
    version = publish_network(models, name)
    images = random_images(GREY if name == "cnn" else PHOTOGRAPHIC, BATCH)
    version = publish_int8(models, version, list(images))
    classifier = Classifier.load(version.path)
    operations = 2 * summarise(classifier.network, classifier.preprocessing).multiply_adds
    rows: list[dict[str, Any]] = []
    for engine_name, engine in measure_engines(version):
        if isinstance(engine, str):
            rows.append({"engine": engine_name, "refused": engine})
            continue
        fitted = engine.for_batch_size(len(images))
        speed = max(images_per_sec(fitted.logits, images, fitted.num_streams) for _ in range(3))
        gflops, peak = speed * operations / 1e9, peaks.get(engine_name.split()[-1])
        share = round(gflops / peak, 3) if peak else None
        rows.append({"engine": engine_name, "images_per_sec": round(speed, 1), "gflops": round(gflops), "share": share})
    return rows


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18,resnet50,mobilenet_v2", help="with commas")
    options = parser.parse_args()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() and "avx512_bf16" in str(describe_run("")["cpu_flags"])
    peaks: dict[str, float] = {
        name: round(peak_gflops(dtype)) for name, dtype in DTYPES.items() if name == "fp32" or has_bf16
    }
    print("matrices alone, GFLOP/s:", ", ".join(f"{name} {peak}" for name, peak in peaks.items()), flush=True)
    networks = {}
    with tempfile.TemporaryDirectory(prefix="ph-ceiling-") as scratch:
        for name in options.network.split(","):
            networks[name] = measure_network(Path(scratch) / name / "models", name, peaks)
            for row in networks[name]:
                print(
                    name, *(f"{key} {value}" for key, value in row.items() if value is not None), sep="  ", flush=True
                )
    result = describe_run("ceiling") | {"peak_gflops": peaks, "batch_size": BATCH, "networks": networks}
    keep(result, "ceiling")


if __name__ == "__main__":
    main()
