"""From predicted labels to text.

Shapes that no classifier can tell apart alone are disambiguated by their neighbours in the word. In many fonts I and l
are the same bar, and O and 0, 5 and S nearly the same shape. Among capitals the bar is an I, among digits a 1, among
small letters an l. This uses no dictionary: only the kind of the nearest unambiguous neighbours, and only labels among
the classifier's best. At the start of a word before small letters nothing is changed, because Ill and ill are both
words.
"""

from collections.abc import Sequence
from itertools import groupby

from orchestrator.pages.alphabet import text_of
from orchestrator.pages.cut import Character

ALIKE = ("Il1", "O0", "S5")
DOUBTFUL_BELOW = 0.6  # best score of a character, where no model decides


def disambiguate(characters: Sequence[Character], candidates: Sequence[Sequence[str]]) -> list[str]:
    """The letter at each place; `candidates` are each character's labels, best first."""
    letters: list[str] = []
    for word in words_of(characters):
        letters += disambiguate_word([[text_of(label) for label in candidates[i]] for i in word])
    return letters


def lines_of(characters: Sequence[Character]) -> list[list[int]]:
    """The places of each line's characters."""
    return [list(line) for _, line in groupby(range(len(characters)), key=lambda i: characters[i].line)]


def words_of(characters: Sequence[Character]) -> list[list[int]]:
    """The places of each word's characters."""
    words: list[list[int]] = []
    for line in lines_of(characters):
        for i in line:
            if i == line[0] or characters[i].space_before:
                words.append([])
            words[-1].append(i)
    return words


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


def written(characters: Sequence[Character], letters: Sequence[str]) -> str:
    """The letters with the page's word spaces and line breaks."""
    return "\n".join(
        "".join(" " * (characters[i].space_before and i != line[0]) + letters[i] for i in line)
        for line in lines_of(characters)
    )
