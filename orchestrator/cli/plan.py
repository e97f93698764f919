"""What `pigeonhole classify --plan` shows."""

from dataclasses import asdict

import click

from orchestrator.cli.output import duration, print_json, say
from orchestrator.contract.settings import Settings
from orchestrator.jobs.forecast import Forecast, Share, forecast
from orchestrator.jobs.specs import ClassifyWish, check_classify


def show_plan(settings: Settings, wish: ClassifyWish, *, as_json: bool) -> None:
    """Check the wish, measure a sample of its images here, and print how the job would go."""
    check_classify(settings, wish)
    say("measuring a sample on this machine; nothing is submitted")
    told = forecast(settings, wish)
    if as_json:
        print_json(asdict(told))
        return
    for name, text in _lines(told):
        click.echo(f"{name:12} {text}")


def _lines(told: Forecast) -> list[tuple[str, str]]:
    """Each fact with its name."""
    stages = ", ".join(f"{stage} {rate:,.0f}" for stage, rate in told.stage_images_per_sec.items())
    times = ", ".join(f"{_count(crew, 'worker')} {duration(seconds)}" for crew, seconds in told.expected_s.items())
    left_out = ", ".join(f"{count} {reason}" for reason, count in told.skipped.items())
    codes = ", ".join(f"{count} {code}" for code, count in told.error_codes.items())
    shared = " if the storage, which they share, keeps up" if told.bound == "storage" else ""
    lines = [
        ("source", f"{told.source}: {_count(told.num_images, 'image')} in {_count(told.num_shards, 'shard')}"),
        ("left out", left_out),
        ("model", f"{told.model} by {told.engine}, {_count(told.batch_size, 'image')} in a batch"),
        (
            "measured",
            f"{_count(told.num_measured, 'image')} in {duration(told.elapsed_s)}: {told.images_per_sec:,.0f} images/s",
        ),
        ("limited by", f"{told.bound} (images/s by stage: {stages})" if told.bound else ""),
        ("time", f"{times} (workers like this machine, each with a device and cores of its own{shared})"),
        ("unreadable", _share_text(told.unreadable) + (f": {codes} in the sample" if codes else "")),
        *((name, _share_text(share)) for name, share in told.decisions.items()),
    ]
    return [(name, text) for name, text in lines if text]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _share_text(share: Share) -> str:
    """A share with its interval, where the sample leaves one."""
    if share.low == share.high:
        return f"{share.share:.1%}"
    return f"{share.share:.1%} ({share.low:.1%} to {share.high:.1%})"
