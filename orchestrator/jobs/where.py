"""The language of --where: which rows of a manifest a command takes.

    expression = and-part {"or" and-part}
    and-part   = not-part {"and" not-part}
    not-part   = "not" not-part | "(" expression ")" | field operator value

A parser of its own, so that an expression can only compare: nothing in it is run, there are no regular expressions of
the user, and a row takes time linear in its length and that of the expression. docs/after.md describes it for users.
"""

import math
import operator
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from modeling.metrics.decisions import DECISIONS
from modeling.names import path_to_text
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import Row

Predicate = Callable[[Row], bool]

MOST_CHARACTERS = 10_000
MOST_SHOWN = 200  # characters of an expression in errors
MOST_LEVELS = 50  # of parentheses and `not`, which the parser descends into


@dataclass(frozen=True, slots=True)
class Where:
    """Expressions of which all must hold, as they were written, and whether a row fits them."""

    text: str
    fits: Predicate


def parse_where(text: str) -> Where:
    """The expression in a text. Raises UsageError, which names the place of what is wrong."""
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"the expression has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    return Where(text, _Parser(text).parse())


def all_of(wheres: Sequence[Where]) -> Where | None:
    """The expressions joined by `and`; None where there are none."""
    if len(wheres) < 2:
        return wheres[0] if wheres else None
    return Where(" and ".join(f"({where.text})" for where in wheres), _all([where.fits for where in wheres]))


_TEXTS: dict[str, Callable[[Row], str]] = {
    "path": lambda row: path_to_text(row.path),
    "status": lambda row: row.status,
    "decision": lambda row: row.prediction.decision or "",
    "label": lambda row: row.prediction.labels[0] if row.prediction.ok else "",
    "error_code": lambda row: row.prediction.error_code or "",
    "error": lambda row: row.prediction.error or "",
}
_CHOICES = {"status": ("ok", "error"), "decision": (*DECISIONS, "")}
_FIELDS = (*_TEXTS, "score")
_NUMBER_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_TEXT_OPERATORS = ("=", "!=", "~")
_OPERATORS = (*_NUMBER_OPERATORS, "~")
_KEYWORDS = ("and", "or", "not")

_SPACES = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z_]+")
_OPERATOR = re.compile(r"[=!<>~]+")
_BARE = re.compile(r"[^\s()]+")
_QUOTED = {quote: re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL) for quote in "\"'"}
_ESCAPED = re.compile(r"\\([\"'\\])")


class _Parser:
    """Reads an expression from left to right; each method reads one rule of the grammar and returns its predicate."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._levels = 0
        self._skip_spaces()

    def parse(self) -> Predicate:
        whole = self._or()
        if self._at < len(self._text):
            raise self._error("expected and, or, or the end; put a value that holds spaces or parentheses in quotes")
        return whole

    def _or(self) -> Predicate:
        parts = [self._and()]
        while self._takes("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else _any(parts)

    def _and(self) -> Predicate:
        parts = [self._not()]
        while self._takes("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else _all(parts)

    def _not(self) -> Predicate:
        begin = self._at
        if self._takes("not"):
            self._descend(begin)
            inner = self._not()
            self._levels -= 1
            return lambda row: not inner(row)
        if self._text.startswith("(", begin):
            self._descend(begin)
            self._at += 1
            self._skip_spaces()
            inner = self._or()
            if not self._text.startswith(")", self._at):
                raise self._error(f"expected and, or, or the ) of the ( at character {begin + 1}")
            self._at += 1
            self._skip_spaces()
            self._levels -= 1
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        begin = self._at
        field = self._match(_WORD)
        if field not in _FIELDS:
            raise self._error(_not_a_field(field), begin)
        begin = self._at
        sign = self._match(_OPERATOR)
        if sign not in _OPERATORS:
            raise self._error(f"expected one of {' '.join(_OPERATORS)}, then a value, in quotes if need be", begin)
        at_value = self._at
        value = self._value()
        if field == "score":
            if sign == "~":
                raise self._error("the score is a number; ~ looks into texts", begin)
            return _compares_score(sign, self._number(value, at_value))
        if sign not in _TEXT_OPERATORS:
            raise self._error(f"{field} is a text; only the score is compared by {sign}", begin)
        if sign != "~" and value not in _CHOICES.get(field, (value,)):
            choices = ", ".join(filter(None, _CHOICES[field]))
            raise self._error(f"{field} is one of {choices}", at_value)
        return _compares_text(_TEXTS[field], sign, value)

    def _value(self) -> str:
        begin = self._at
        quote = self._text[begin : begin + 1]
        if quote in _QUOTED:
            found = _QUOTED[quote].match(self._text, begin)
            if found is None:
                raise self._error(f"the quote {quote} has no end")
            self._at = found.end()
            self._skip_spaces()
            return _ESCAPED.sub(r"\1", found[1])
        value = self._match(_BARE)
        if not value:
            raise self._error('expected a value; "" is the empty one')
        return value

    def _number(self, value: str, at: int) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._error("the score is compared with a number such as 0.6", at)
        return number

    def _descend(self, at: int) -> None:
        self._levels += 1
        if self._levels > MOST_LEVELS:
            raise self._error(f"more than {MOST_LEVELS} levels of ( and not", at)

    def _takes(self, keyword: str) -> bool:
        """Whether the keyword is next; it is then behind."""
        found = _WORD.match(self._text, self._at)
        if found is None or found[0].lower() != keyword:
            return False
        self._match(_WORD)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        """What the pattern matches here, and the spaces after it are behind; empty if it matches nothing."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        self._skip_spaces()
        return found[0]

    def _skip_spaces(self) -> None:
        found = _SPACES.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _error(self, problem: str, at: int | None = None) -> UsageError:
        at = self._at if at is None else at
        rest = self._text[at : at + 20]
        place = f"at character {at + 1} ({rest!r})" if rest else "at its end"
        return UsageError(f"{self._text[:MOST_SHOWN]!r}, {place}: {problem}")


def _not_a_field(word: str) -> str:
    near = get_close_matches(word.lower(), _FIELDS, n=1)
    hint = f"did you mean {near[0]}? " if near and word.lower() not in _KEYWORDS else ""
    return f"expected a field; {hint}there are {', '.join(_FIELDS)}"


def _any(parts: Sequence[Predicate]) -> Predicate:
    return lambda row: any(part(row) for part in parts)


def _all(parts: Sequence[Predicate]) -> Predicate:
    return lambda row: all(part(row) for part in parts)


def _compares_score(sign: str, number: float) -> Predicate:
    compare = _NUMBER_OPERATORS[sign]

    def fits(row: Row) -> bool:
        """A row without a score fits `!=` only, as not-a-number does."""
        prediction = row.prediction
        return compare(prediction.scores[0] if prediction.ok else math.nan, number)

    return fits


def _compares_text(get: Callable[[Row], str], sign: str, value: str) -> Predicate:
    if sign == "~":
        part = _folded(value)
        return lambda row: part in _folded(get(row))
    wanted = _composed(value)
    if sign == "=":
        return lambda row: _composed(get(row)) == wanted
    return lambda row: _composed(get(row)) != wanted


def _composed(text: str) -> str:
    """The text in Unicode's form NFC: macOS writes an `é` as two characters, keyboards as one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else _composed(text.casefold())
