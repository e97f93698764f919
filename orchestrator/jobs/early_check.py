"""The look at a source before a job: whether all its images would fail for one reason that lies in their paths."""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from modeling.data.lists.advice import advise, common_code
from modeling.data.lists.faults import PathRoot
from orchestrator.contract.errors import UsageError
from orchestrator.jobs.sources import Source

NUM_LOOKED_AT = 100
_SEED = 0


def check_paths(source: Source, reopen: Callable[[], Source], *, follow_symlinks: bool) -> None:
    """Look at the first paths; where all fail for one reason, at as many from all over the listing.

    Raises UsageError with that reason where these fail for it as well. What images hold is never looked at.
    reopen: gives the source once more, so that `source` loses no path.
    """
    root = PathRoot(source.root, follow_symlinks)
    first = source.peek(NUM_LOOKED_AT)
    code = common_code(root, first)
    if code is None:
        return
    later, num_later = draw_sample(islice(reopen().paths, len(first), None), NUM_LOOKED_AT)
    if later and common_code(root, later) != code:
        return
    choose_root = "choose it with --root {root!r}" if source.is_list else "give {root!r}"
    reason = advise(root, first + later, code, list(_beside(source)), choose_root)
    raise UsageError(f"{_counted(source.text, len(first), len(later), num_later)} would fail with {code}: {reason}")


def _beside(source: Source) -> Iterator[str]:
    """Folders that paths of a list are often relative to."""
    with contextlib.suppress(FileNotFoundError):  # the present folder was deleted
        yield from (str(Path.cwd()), str(Path(source.text).absolute().parent))


def draw_sample(paths: Iterable[str], size: int) -> tuple[list[str], int]:
    """Up to `size` of the paths in random order, and the number of paths; the same paths give the same sample."""
    chance = random.Random(_SEED)
    sample: list[str] = []
    num_paths = 0
    for path in paths:
        num_paths += 1
        if len(sample) < size:
            sample.append(path)
        elif (place := chance.randrange(num_paths)) < size:
            sample[place] = path
    chance.shuffle(sample)  # measuring may end early: the images measured by then are a random sample, too
    return sample, num_paths


def _counted(text: str, num_first: int, num_sampled: int, num_later: int) -> str:
    if num_sampled == num_later:
        num_all = num_first + num_later
        return f"{text!r}: the only path" if num_all == 1 else f"{text!r}: all {num_all:,} paths"
    return f"{text!r}: the first {num_first:,} paths and {num_sampled:,} from all over the other {num_later:,}"
