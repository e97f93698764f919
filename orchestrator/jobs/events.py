"""What the child process of a training or an evaluation says, in a few words each.

A `note` is of interest while it is the last word; a `warning` must be known at the end, too.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]

# What goes through images one after another: the words before "123/1000 images".
_STEPS = {
    "scan": "scanning",
    "decode": "reading",
    "features": "computing features of",
    "evaluate": "evaluating",
}


_SHARES = {"epoch": ("epoch", "epochs"), "download": ("bytes_done", "num_bytes")}


def describe_event(progress: str) -> str:
    """The last event of a job, as the ledger keeps it, on one line; empty where there is nothing to tell."""
    event = parse_event(progress)
    tell = _WORDS.get(str(event.get("event")))
    try:
        return " ".join(tell(event).split()) if tell else ""
    except (KeyError, TypeError, ValueError):
        return ""  # of another release: what it means is not for this one to say


def share_done(progress: str) -> tuple[float, float] | None:
    """How much of how much is done, by the last event; None where that cannot be told."""
    event = parse_event(progress)
    names = _SHARES.get(str(event.get("event")), ("num_done", "num_images"))
    done, total = (event.get(name) for name in names)
    if isinstance(done, int | float) and isinstance(total, int | float) and 0 <= done <= total and total > 0:
        return done, total
    return None


def warnings(events: Path) -> list[str]:
    """The warnings in a job's `events.jsonl`, each once, in their order; none where nothing was said."""
    try:
        lines = events.read_text(errors="backslashreplace").splitlines()
    except FileNotFoundError:
        return []
    found = (parse_event(line) for line in lines if '"warning"' in line)
    return list(dict.fromkeys(str(event.get("text")) for event in found if event.get("event") == "warning"))


def parse_event(progress: str) -> Event:
    """The event; empty where there is none yet, or half of one."""
    try:
        event = json.loads(progress)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _step(event: Event) -> str:
    """A step through images."""
    return f"{_STEPS[event['event']]} {event['num_done']:,}/{event['num_images']:,} images"


def _download(event: Event) -> str:
    """Weights on their way."""
    of_all = f" of {event['num_bytes'] / 1e6:,.1f}" if event.get("num_bytes") else ""
    return f"downloading weights, {event['bytes_done'] / 1e6:,.1f}{of_all} MB"


def _epoch(event: Event) -> str:
    """An epoch that is over, and how long the others will take at its pace."""
    words = [f"epoch {event['epoch']}/{event['epochs']}", f"loss {event['loss']:.4f}"]
    if event.get("accuracy") is not None:
        words.append(f"validation accuracy {event['accuracy']:.4f}")
    if event.get("images_per_sec"):
        words.append(f"{event['images_per_sec']:,.0f} images/s")
    if event.get("seconds") and event["epoch"] < event["epochs"]:
        words.append(f"{(event['epochs'] - event['epoch']) * event['seconds']:,.0f} s left")
    return ", ".join(words)


def _probe(event: Event) -> str:
    """A linear probe on cached features."""
    accuracy = event.get("accuracy")
    return "linear probe fitted" + ("" if accuracy is None else f": validation accuracy {accuracy:.4f}")


def _data(event: Event) -> str:
    """What there is to learn from, once it was scanned and split."""
    held_out = event["num_validation"] + event["num_test"]
    return f"{event['num_train']:,} images to learn from, {held_out:,} held out"


_WORDS: dict[str, Callable[[Event], str]] = {
    **dict.fromkeys(_STEPS, _step),
    "download": _download,
    "epoch": _epoch,
    "data": _data,
    "probe": _probe,
    "model": lambda event: "the model is made",
    "resumed": lambda event: f"resumed after epoch {event['epoch']}",
    "note": lambda event: str(event["text"]),
    "warning": lambda event: str(event["text"]),
}
