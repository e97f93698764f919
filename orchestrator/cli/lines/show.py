"""`pigeonhole lines list` and `show`."""

from typing import TYPE_CHECKING, Any

import click

from modeling.errors import ModelingError
from orchestrator.cli.lines.facts import bin_states, readable_settings
from orchestrator.cli.lines.options import LineName
from orchestrator.cli.output import json_option, print_json, print_line, print_message, print_table, size_text
from orchestrator.contract.errors import NotFoundError, UnavailableError, UsageError
from orchestrator.contract.lines.quantities import duration_text

if TYPE_CHECKING:
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.contract.lines.settings import Line
    from orchestrator.contract.lines.status import LineStatus, WorkerOfLine

LABELS_SHOWN = 20


@click.command("list")
@json_option
def list_lines(as_json: bool) -> None:
    """List the lines, and as @MODEL those that a gateway has opened for models.

    Works without a server, too, but the state is unknown then.

    \b
    Example:
      pigeonhole lines list
    """
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.lines.facts import line_facts, status_facts

    view = LinesView()
    if view.trouble:
        print_message(f"showing only what is on the disk: {view.trouble}", color="yellow")
    facts: list[dict[str, Any]] = []
    for name in view.names():
        try:
            line = view.get(name)
        except NotFoundError:
            continue  # removed while they are listed
        except UsageError as err:
            print_message(f"cannot read line {name}: {err}", color="yellow")
            continue
        facts.append(line_facts(line) | status_facts(_status(view, line)))
    if as_json:
        print_json(facts)
    elif facts:
        print_table(("line", "state", "model", "deadline", "waiting", "workers"), [_row(line) for line in facts])
    else:
        print_message("no lines; `pigeonhole lines create` makes one")


def _row(facts: dict[str, Any]) -> tuple[object, ...]:
    settings = facts["settings"]
    num_open = sum(worker["alive"] and worker.get("state") in ("open", "paused") for worker in facts.get("workers", ()))
    known = facts["state"] != "unknown"
    return (
        facts["line"],
        facts["state"],
        settings["model"],
        duration_text(settings["deadline_ms"]),
        facts["num_waiting"] if known else "?",
        num_open if known else "?",
    )


@click.command("show")
@click.argument("line", type=LineName())
@json_option
def show_line(line: str, as_json: bool) -> None:
    """Show LINE: its state, what waits, the longest wait for the device, settings, bins and workers.

    A line is `opening` until a worker has loaded and warmed its model, then `open`, or `paused`.

    \b
    Example:
      pigeonhole lines show birds --json
    """
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.lines.facts import line_facts, status_facts

    view = LinesView()
    found = view.get(line)
    if view.trouble:
        print_message(f"showing only what is on the disk: {view.trouble}", color="yellow")
    status = _status(view, found)
    version = _model_version(found)
    if as_json:
        print_json(line_facts(found) | {"model_version": version} | status_facts(status))
        return
    for name, text in _readable(found, status, version).items():
        print_line(f"{name:14} {text}")
    _print_bins(found)
    for worker in status.workers if status else ():
        print_line(f"{'worker':14} {_describe_worker(worker)}")


def _status(view: "LinesView", line: "Line") -> "LineStatus | None":
    """None where the line's server does not answer, with a message unless that is the server of all lines."""
    import redis

    from orchestrator.contract.lines.status import read_status

    try:
        return read_status(view.store(line), line)
    except redis.ResponseError as err:  # somebody who may push to it has written to its keys
        print_message(f"line {line.name}: its state cannot be read: {err}", color="yellow")
        return None
    except UnavailableError as err:
        if err is not view.trouble:
            print_message(f"line {line.name}: {err}", color="yellow")
        return None


def _model_version(line: "Line") -> str | None:
    """The version for which the model's reference stands now; None where this machine does not know it."""
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    try:
        return ModelStore(get_settings().models).resolve(line.settings.model).ref
    except ModelingError:
        return None


def _readable(line: "Line", status: "LineStatus | None", version: str | None) -> dict[str, str]:
    settings = readable_settings(line.settings)
    if version not in (None, line.settings.model):
        settings["model"] += f", now {version}"
    return {"line": line.name, "state": _describe_state(status)} | _waiting(line, status) | settings


def _describe_state(status: "LineStatus | None") -> str:
    if status is None:
        return "unknown"
    if status.state != "opening":
        return status.state
    if any(worker.alive for worker in status.workers):
        return "opening: no worker is ready yet"
    return "opening: no worker has it; start one with `pigeonhole up` or `pigeonhole worker`"


def _waiting(line: "Line", status: "LineStatus | None") -> dict[str, str]:
    if status is None:
        return {}
    requests = f"{status.num_waiting:,} of {line.settings.max_requests:,} requests"
    size = f"{size_text(status.bytes_waiting)} of {size_text(line.settings.max_bytes)}"
    facts = {"waiting": f"{requests}, {size}; workers hold {status.num_held:,}"}
    if status.bound_ms is not None:
        facts["device"] = f"free for a push after at most {status.bound_ms:.0f} ms"
    return facts


def _print_bins(line: "Line") -> None:
    """The bins of the labels, with what closes them."""
    states = bin_states(line)
    for label, bins in list(line.settings.bins.items())[:LABELS_SHOWN]:
        names = ", ".join(name if states[name] == "open" else f"{name} ({states[name]})" for name in bins)
        print_line(f"{'bin':14} {label}: {names}")
    if len(line.settings.bins) > LABELS_SHOWN:
        print_line(f"{'bin':14} and those of {len(line.settings.bins) - LABELS_SHOWN} more labels; see --json")


def _describe_worker(worker: "WorkerOfLine") -> str:
    if not worker.alive:
        return f"{worker.worker}: gone" + (f"; {worker.trouble}" if worker.trouble else "")
    words = [str(worker.facts.get("state", "opening"))]
    if worker.loading:
        words[0] += f" ({worker.loading})"
    if model := worker.facts.get("model"):
        words.append(str(model))
    if worker.ms_per_image:
        words.append(f"{worker.ms_per_image:.1f} ms an image, an answer after {worker.lead_ms:.0f} ms")
    return f"{worker.worker}: {', '.join(words)}" + (f"; {worker.trouble}" if worker.trouble else "")
