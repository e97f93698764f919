"""From predicted labels to text, and the accuracy of that text.

Shapes that no classifier can tell apart alone are disambiguated by their neighbours in the word. In many fonts I and l
are the same bar, and O and 0, 5 and S nearly the same shape. Among capitals the bar is an I, among digits a 1, among
small letters an l. This uses no dictionary: only the kind of the nearest unambiguous neighbours, and only labels among
the classifier's best. At the start of a word before small letters nothing is changed, because Ill and ill are both
words.

Own alignment, not rapidfuzz: among equally good alignments it must always choose the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from orchestrator.demo.cut import Character
from orchestrator.demo.labels import character_of

ALIKE = ("Il1", "O0", "S5")
Prediction = tuple[Sequence[str], Sequence[float]]  # one image's best labels and their scores, best first
DOUBTFUL_BELOW = 0.6  # characters whose best score is lower are doubtful


def disambiguate(characters: Sequence[Character], candidates: Sequence[Sequence[str]]) -> list[str]:
    """The letter at each place; `candidates` are each character's labels, best first."""
    words: list[list[int]] = []
    for i, character in enumerate(characters):
        if i == 0 or character.space_before or character.line != characters[i - 1].line:
            words.append([])
        words[-1].append(i)
    letters: list[str] = []
    for word in words:
        letters += disambiguate_word([[character_of(label) for label in candidates[i]] for i in word])
    return letters


def disambiguate_word(candidates: Sequence[Sequence[str]]) -> list[str]:
    """The letters of one word; `candidates` are each place's characters, best first."""
    best = [choices[0] for choices in candidates]
    return [_disambiguated(i, best, choices) for i, choices in enumerate(candidates)]


def _disambiguated(place: int, best: Sequence[str], choices: Sequence[str]) -> str:
    """The letter at one place of a word, given its neighbours."""
    alike = next((shapes for shapes in ALIKE if best[place] in shapes), "")
    before = [_kind(letter) for letter in reversed(best[:place]) if not _is_alike(letter)]
    after = [_kind(letter) for letter in best[place + 1 :] if not _is_alike(letter)]
    beside = {kinds[0] for kinds in (before, after) if kinds} - {""}
    starts_word = place == 0 and "lower" in beside
    if len(beside) != 1 or starts_word:
        return best[place]
    fitting = [letter for letter in choices if letter in alike and _kind(letter) in beside]
    return fitting[0] if fitting else best[place]


def _is_alike(letter: str) -> bool:
    return any(letter in shapes for shapes in ALIKE)


def _kind(letter: str) -> str:
    """Upper, lower or digit; empty for punctuation."""
    if letter.isdigit():
        return "digit"
    if not letter.isalpha():
        return ""
    return "upper" if letter.isupper() else "lower"


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


@dataclass(frozen=True)
class Reading:
    """The character read at one place of the page; `right`, by comparison with the original, is only for display."""

    text: str
    score: float
    right: bool

    @property
    def doubtful(self) -> bool:
        return self.score < DOUBTFUL_BELOW


def judge(original: str, letters: Sequence[str], predictions: Sequence[Prediction]) -> list[Reading]:
    """Each letter that was read, with the score of its prediction, and whether the original agrees."""
    pairs = align("".join(original.split()), "".join(letters))
    agrees = [pair.agrees for pair in pairs if pair.recognised is not None]
    scores = [scores[0] for _, scores in predictions]
    return [Reading(*reading) for reading in zip(letters, scores, agrees, strict=True)]


def recognised_text(characters: Sequence[Character], letters: Sequence[str]) -> str:
    """The letters with the page's word spaces and line breaks."""
    text = ""
    for i, (character, letter) in enumerate(zip(characters, letters, strict=True)):
        if i and character.line != characters[i - 1].line:
            text += "\n"
        elif character.space_before:
            text += " "
        text += letter
    return text


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
