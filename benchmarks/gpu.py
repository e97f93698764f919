"""How much of a GPU the library uses: resnet50 and convnext_tiny in bfloat16, from JPEGs to predictions.

    python -m benchmarks.gpu --num-images 4096 --repeats 3

Written without a GPU at hand and never run on one yet: trust its figures after a look at them. Needs CUDA (else it
ends with 69) and nothing from the network. For each network: the model alone at several sizes of batch, decoding alone
by this machine's cores and by nvJPEG (where `torchcodec` is installed), and the library in this process, on the engine
and in the batches that it chooses itself, as a share of what the model alone does at its best. The last line is JSON;
it goes to `benchmarks/results/`, too.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_folders import make_photographs
from benchmarks.throughput_networks import PHOTOGRAPHIC, publish_network
from modeling.classifier import Classifier
from modeling.decode import decode_image
from modeling.decoders import num_cores
from modeling.engines.choose import load_fastest
from modeling.engines.torch_engine import TorchEngine
from modeling.pipeline import predict_groups

UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
NETWORKS = ("resnet50", "convnext_tiny")
BATCHES = (32, 64, 128, 256, 512)
MODEL_ALONE_S = 3.0
TOP_K = 5


def measure_model(engine: TorchEngine, batch_size: int) -> float:
    """Images a second through the network, from pixels on the GPU to logits on the GPU."""
    images = torch.randint(0, 256, (batch_size, *PHOTOGRAPHIC.shape), dtype=torch.uint8, device="cuda")
    for _ in range(5):
        engine.forward(images)
    torch.cuda.synchronize()
    started, num_images = time.perf_counter(), 0
    while time.perf_counter() - started < MODEL_ALONE_S:
        for _ in range(10):
            engine.forward(images)
        torch.cuda.synchronize()
        num_images += 10 * batch_size
    return num_images / (time.perf_counter() - started)


def measure_library(classifier: Classifier, files: list[Path]) -> float:
    """Images a second from files to predictions, as a worker does it."""
    size = classifier.batch_size
    groups = ([path.read_bytes for path in files[at : at + size]] for at in range(0, len(files), size))
    started = time.perf_counter()
    results = predict_groups([groups], classifier, top_k=TOP_K)
    assert sum(p.ok for result in results for p in result.predictions) == len(files)
    return len(files) / (time.perf_counter() - started)


def measure_cpu_decode(files: list[Path], threads: int) -> float:
    """Images a second, read and decoded to the network's size by threads."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda path: decode_image(path.read_bytes(), PHOTOGRAPHIC), files):
            pass
    return len(files) / (time.perf_counter() - started)


def measure_nvjpeg(files: list[Path], batch_size: int = 128) -> float:
    """Images a second, read and decoded to their full size on the GPU.

    Raises:
        ImportError: torchcodec is not installed, or too old to decode images.
    """
    from torchcodec.decoders import decode_jpeg

    decode_jpeg(files[:batch_size], device="cuda")  # the first call sets nvJPEG up
    torch.cuda.synchronize()
    started = time.perf_counter()
    for at in range(0, len(files), batch_size):
        decode_jpeg(files[at : at + batch_size], device="cuda")
    torch.cuda.synchronize()
    return len(files) / (time.perf_counter() - started)


def median(repeats: int, work: Callable[[], float]) -> float:
    """The median of as many runs."""
    return round(statistics.median(work() for _ in range(repeats)), 1)


def measure_network(models: Path, name: str, files: list[Path], repeats: int) -> dict[str, Any]:
    """The figures of one network."""
    classifier = load_fastest(publish_network(models, name), "cuda")
    whole = copy.deepcopy(classifier.network)  # its memory format changes
    engine = TorchEngine(whole, classifier.preprocessing, classifier.device, "bf16")
    model = {size: median(repeats, lambda size=size: measure_model(engine, size)) for size in BATCHES}
    best = max(model, key=lambda size: model[size])
    measure_library(classifier, files[: classifier.batch_size])
    library = median(repeats, lambda: measure_library(classifier, files))
    share = round(library / model[best], 3)
    print(f"{name}: model alone {model[best]:,.0f} images/s in batches of {best}; library {library:,.0f}, {share:.0%}")
    engines = {"engine": classifier.engine_name, "batch_size": classifier.batch_size}
    return engines | {"model": model, "best_batch": best, "library": library, "library_to_model": share}


def measure_decoding(files: list[Path], repeats: int, threads: int) -> dict[str, Any]:
    """Decoding by the cores and by the GPU."""
    figures: dict[str, Any] = {"cpu": median(repeats, lambda: measure_cpu_decode(files, threads)), "threads": threads}
    try:
        figures["nvjpeg"] = median(repeats, lambda: measure_nvjpeg(files))
    except (ImportError, OSError, RuntimeError) as err:
        print(f"nvJPEG is not measured: torchcodec cannot be used ({str(err).splitlines()[0]})")
    print(f"decoding alone, images/s: {figures}")
    return figures


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=4096, help="photographs of about 500 x 375 px")
    parser.add_argument("--repeats", type=int, default=3, help="of everything; medians are reported")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device, and torch finds none here", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    threads = num_cores()
    with tempfile.TemporaryDirectory(prefix="ph-bench-") as scratch:
        contents = make_photographs(Path(scratch) / "images", options.num_images)
        files = sorted((Path(scratch) / "images").rglob("*.jpg"))
        decoding = measure_decoding(files, options.repeats, threads)
        models = Path(scratch) / "home" / "models"
        networks = {name: measure_network(models, name, files, options.repeats) for name in NETWORKS}
    result = describe_run("gpu") | {
        "gpu": torch.cuda.get_device_name(),
        "contents": contents,
        "decoding": decoding,
        "networks": networks,
    }
    keep(result, "gpu")


if __name__ == "__main__":
    main()
