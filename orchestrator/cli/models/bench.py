"""`pigeonhole models bench`: how fast a model answers on this machine."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import json_option, print_json, print_message, print_table
from orchestrator.cli.speaking import doing

if TYPE_CHECKING:
    from modeling.inference.bench import Speed


@click.command("bench")
@click.argument("model")
@click.option("--device", default="cpu", show_default=True, help="cpu, or a GPU by torch's name: cuda:0.")
@json_option
def bench_model(model: str, device: str, as_json: bool) -> None:
    """Measure how fast MODEL answers here, by engine and batch size.

    A star marks the engine that jobs use on this machine, which such a measurement has chosen. Images per second are
    those of the network alone, on all cores; `classify --plan` estimates a whole job.

    \b
    Example:
      pigeonhole models bench birds
    """
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    version = ModelStore(get_settings().models).resolve(model)
    prepare_for_libraries()
    from modeling.inference.bench import bench_engines  # torch: seconds

    print_message(f"measuring {version.ref} on {device}; building its engines takes seconds the first time")
    with doing(f"measuring {version.ref}") as replace_words:
        speeds = list(bench_engines(version, device, replace_words))
    if as_json:
        print_json({"model": version.ref, "device": device, "speeds": [asdict(speed) for speed in speeds]})
        return
    print_table(("engine", "batch", "images/s", "latency"), [_row(speed) for speed in speeds])


def _row(speed: "Speed") -> tuple[str, object, str, str]:
    name = f"{speed.engine} *" if speed.chosen else speed.engine
    if speed.images_per_sec is None or speed.latency_ms is None:
        return name, "-", "-", f"not used: {speed.refused}"
    return name, speed.batch_size, f"{speed.images_per_sec:,.1f}", f"{speed.latency_ms:,.2f} ms"
