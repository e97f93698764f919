"""`pigeonhole lines stats`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.lines.options import LineName
from orchestrator.cli.output import duration, json_option, print_json, print_line, print_table
from orchestrator.contract.lines.limits import MOST_MINUTES

if TYPE_CHECKING:
    from orchestrator.contract.lines.stats import Histogram, LineStats

_BAR = 40
_COUNTS = {
    "recovered": "taken over from dead workers",
    "delivered_alone": "decided by a client alone",
    "disagreements": "of these, not as recorded",
    "discharged": "discharges reported",
    "discharged_elsewhere": "of these, elsewhere than decided",
    "restored": "old answers given again",
    "images_not_kept": "images not kept, for lack of room",
    "answers_dropped": "answers not kept, for lack of room",
    "discharges_dropped": "reports not kept, for lack of room",
}


@click.command("stats")
@click.argument("line", type=LineName())
@click.option(
    "--minutes", type=click.IntRange(1, MOST_MINUTES), default=10, show_default=True,
    help="Minutes that are shown beside the whole time.",
)  # fmt: skip
@json_option
def show_stats(line: str, minutes: int, as_json: bool) -> None:
    """Show what became of the pushes of LINE: in the last minutes, and since the server has known it.

    Shares of all answers by reason, causes of misses, refusals, batch sizes, waits by stage, and the time from the
    admission to the answer. Quantiles are interpolated between the bounds of a histogram.

    \b
    Examples:
      pigeonhole lines stats birds
      pigeonhole lines stats birds --minutes 60 --json
    """
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.contract.lines.stats import read_stats
    from orchestrator.lines.facts import stats_facts

    view = LinesView()
    store = view.store(view.get(line))
    recent, whole = read_stats(store, minutes), read_stats(store)
    if as_json:
        print_json({"line": line, "recent": stats_facts(recent), "whole": stats_facts(whole)})
        return
    both = dict(_rows(recent)), dict(_rows(whole))
    names = dict.fromkeys([*both[1], *both[0]])
    columns = ("", f"last {duration(recent.seconds)}", f"last {duration(whole.seconds)}")
    print_table(columns, [(name, *(rows.get(name, "-") for rows in both)) for name in names])
    _print_histogram(whole.latency)


def _rows(stats: "LineStats") -> Iterator[tuple[str, str]]:
    """One row a figure; what never happened has none."""
    rate = f" ({stats.answers / stats.seconds:.1f} a second)" if stats.seconds > 0 else ""
    yield "pushes admitted", f"{stats.admitted:,}"
    yield "answers", f"{stats.answers:,}{rate}"
    for name, num in stats.outcomes.items():
        yield f"  {name}", f"{num:,} ({stats.share(name):.2%})"
    yield from _group("misses caused by", stats.causes)
    yield from _group("refused:", stats.refused)
    if stats.mean_batch is not None:
        yield "images in a batch", f"{stats.mean_batch:.1f}"
        largest = sorted(stats.batches.items(), key=lambda pair: -pair[1])[:4]
        yield "  batches by size", ", ".join(f"{size}: {num:,}" for size, num in sorted(largest))
    yield from _times("answered after", stats.latency)
    for stage, waits in stats.waits.items():
        yield from _times(f"  {stage}", waits)
    counts = asdict(stats)
    for name, words in _COUNTS.items():
        if counts[name]:
            yield words, f"{counts[name]:,}"


def _group(words: str, counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for name, num in counts.items():
        yield f"{words} {name}", f"{num:,}"


def _times(words: str, histogram: "Histogram") -> Iterator[tuple[str, str]]:
    from orchestrator.lines.facts import QUANTILES

    if histogram.num:
        found = [f"{name} {histogram.quantile(share):.0f}" for name, share in QUANTILES.items()]
        yield f"{words} (ms)", ", ".join(found)


def _print_histogram(histogram: "Histogram") -> None:
    """The times to the answer since the beginning, a bar for each bucket that is not empty."""
    counts = [(f"{bound:,} ms", num) for bound, num in histogram.counts if num]
    counts += [("longer", histogram.more)] if histogram.more else []
    if not counts:
        return
    most = max(num for _, num in counts)
    print_line()
    print_line("answered within, over the whole time")
    for bound, num in counts:
        bar = "#" * max(1, round(num / most * _BAR))
        print_line(f"{bound:>10}  {bar:{_BAR}}  {num:,} ({num / histogram.num:.2%})")
