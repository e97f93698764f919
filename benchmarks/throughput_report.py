"""From the repeats of `benchmarks.throughput` to medians, ratios and a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS = {
    "decode": "bound: read and decode alone",
    "model": "bound: network alone",
    "library": "library, in process",
    "job_warm": "job, warm worker",
    "job_cold": "job, worker's start included",
    "library_int8": "library, int8",
    "job_int8": "job, warm worker, int8",
}

Rates = Mapping[str, Sequence[float]]  # images a second of each repeat, by what was measured


def shared_bound(decode: float, model: float) -> float:
    """Images per second if decoding and network share the cores; each rate was measured with all cores."""
    return 1 / (1 / decode + 1 / model)


def peer_rates(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A peer's medians: `steady`, after imports and set-up, and `whole`, of the whole process."""
    steady = [answer["images_per_sec"] for answer in answers]
    whole = [answer["num_images"] / answer["seconds_process"] for answer in answers]
    return {
        "steady": round(statistics.median(steady), 2),
        "whole": round(statistics.median(whole), 2),
        "steady_runs": steady,
        "whole_runs": [round(rate, 2) for rate in whole],
        "versions": answers[0]["versions"],
    }


def summarise(ours: Rates, peers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Everything about one network, ready for JSON.

    peers: the figures of `peer_rates` by name, or `{"failed": why}`.
    """
    medians = {name: round(statistics.median(rates), 2) for name, rates in ours.items()}
    bounds = [shared_bound(decode, model) for decode, model in zip(ours["decode"], ours["model"], strict=True)]
    medians["bound"] = round(statistics.median(bounds), 2)
    return {
        "images_per_sec": medians,
        "runs": {name: [round(rate, 2) for rate in rates] for name, rates in ours.items()},
        "peers": dict(peers),
        "ratios": _ratios(ours, bounds, peers),
    }


def _ratios(ours: Rates, bounds: Sequence[float], peers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Medians of the ratios within each repeat, because machines change their speed between repeats."""
    ratios = {
        "library_to_bound": _ratio(ours["library"], bounds),
        "job_warm_to_bound": _ratio(ours["job_warm"], bounds),
        "job_warm_to_library": _ratio(ours["job_warm"], ours["library"]),
    }
    if "job_int8" in ours:
        ratios["job_int8_to_job_warm"] = _ratio(ours["job_int8"], ours["job_warm"])
    for name, figures in peers.items():
        if "failed" not in figures:
            if "job_int8" in ours:
                ratios[f"job_int8_to_{name}_steady"] = _ratio(ours["job_int8"], figures["steady_runs"])
            ratios[f"library_to_{name}_steady"] = _ratio(ours["library"], figures["steady_runs"])
            ratios[f"job_warm_to_{name}_steady"] = _ratio(ours["job_warm"], figures["steady_runs"])
            ratios[f"job_cold_to_{name}_whole"] = _ratio(ours["job_cold"], figures["whole_runs"])
    return ratios


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def table(network: str, result: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The table of one network; `titles` names the peers."""
    rates, ratios = result["images_per_sec"], result["ratios"]
    lines = [f"{network}", f"  {'':34}{'images/s':>10}{'of bound':>10}"]
    for name, title in [*list(OURS.items())[:2], ("bound", "bound: both share the cores"), *list(OURS.items())[2:]]:
        if name not in rates:
            continue
        share = f"{rates[name] / rates['bound']:>10.2f}" if name not in ("decode", "model") else ""
        lines.append(f"  {title:34}{rates[name]:>10.1f}{share}")
    if result["peers"]:
        lines.append(f"  {'':34}{'steady':>10}{'whole':>10}{'warm/steady':>13}{'cold/whole':>12}")
    for name, figures in result["peers"].items():
        if "failed" in figures:
            lines.append(f"  {titles[name]:34}{figures['failed']:>10}")
            continue
        warm, cold = ratios[f"job_warm_to_{name}_steady"], ratios[f"job_cold_to_{name}_whole"]
        lines.append(
            f"  {titles[name]:34}{figures['steady']:>10.1f}{figures['whole']:>10.1f}{warm:>13.2f}{cold:>12.2f}"
        )
    return "\n".join(lines)
