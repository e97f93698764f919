"""How much of a text was read as it was printed.

Own alignment, not rapidfuzz: among equally good alignments it must always choose the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from orchestrator.pages.picture import Reading
from orchestrator.pages.text import DOUBTFUL_BELOW

Prediction = tuple[Sequence[str], Sequence[float]]  # one image's best labels and their scores, best first


@dataclass(frozen=True)
class LetterPair:
    """One step of an alignment: a character of the original and of the recognised text, None if missing."""

    original: str | None
    recognised: str | None

    @property
    def agrees(self) -> bool:
        return self.original == self.recognised


def align(original: str, recognised: str) -> list[LetterPair]:
    """An alignment of both texts with the fewest differences (Levenshtein, 1965)."""
    costs = [list(range(len(recognised) + 1))]
    for i, wanted in enumerate(original, start=1):
        above, row = costs[-1], [i]
        for j, found in enumerate(recognised, start=1):
            row.append(min(above[j - 1] + (wanted != found), above[j] + 1, row[j - 1] + 1))
        costs.append(row)
    pairs, i, j = [], len(original), len(recognised)
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + (original[i - 1] != recognised[j - 1]):
            i, j = i - 1, j - 1
            pairs.append(LetterPair(original[i], recognised[j]))
        elif i and costs[i][j] == costs[i - 1][j] + 1:
            i -= 1
            pairs.append(LetterPair(original[i], None))
        else:
            j -= 1
            pairs.append(LetterPair(None, recognised[j]))
    return pairs[::-1]


def mark_readings(original: str, letters: Sequence[str], predictions: Sequence[Prediction]) -> list[Reading]:
    """Each letter that was read, with the score of its prediction, and whether the original agrees."""
    pairs = align("".join(original.split()), "".join(letters))
    agrees = [pair.agrees for pair in pairs if pair.recognised is not None]
    scores = [scores[0] for _, scores in predictions]
    return [
        Reading(letter, doubtful=score < DOUBTFUL_BELOW, wrong=not right)
        for letter, score, right in zip(letters, scores, agrees, strict=True)
    ]


def side_by_side(original: str, recognised: str) -> list[str]:
    """Both texts side by side, line by line; a ^ below a line marks each difference."""
    pairs = list(zip_longest(original.splitlines(), recognised.splitlines(), fillvalue=""))
    width = max((len(line) for line, _ in pairs), default=0)
    rows = []
    for wanted, found in pairs:
        rows.append(f"{wanted:<{width}} | {found}".rstrip())
        if wanted != found:
            rows.append(f"{'':<{width}} | {_marks(wanted, found)}".rstrip())
    return rows


def _marks(wanted: str, found: str) -> str:
    """A ^ under each character of `found` that differs, and under the one after a gap."""
    marks, missing = "", False
    for pair in align(wanted, found):
        if pair.recognised is not None:
            marks += " " if pair.agrees and not missing else "^"
        missing = pair.recognised is None
    return marks + "^" * missing


def character_accuracy(original: str, recognised: str) -> float:
    """1 minus the differences per character of the original, without white space; at least 0."""
    wanted, found = "".join(original.split()), "".join(recognised.split())
    if not wanted:
        raise ValueError("the original text is empty: there is nothing to compare with")
    num_different = sum(not pair.agrees for pair in align(wanted, found))
    return max(1 - num_different / len(wanted), 0.0)
