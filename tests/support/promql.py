"""As much of PromQL as monitoring/alerts.yml uses, read as Prometheus reads it; anything else is a ValueError.

Selectors with =, !=, =~ and !~; rate and increase, extrapolated as Prometheus does it; sum, max and min with `by` or
`without`; / * + - between vectors or with a number; comparisons as filters; and, or, with `on` or `ignoring`.
The tests of the rules also run by promtool where there is one, so that this reading is checked against it.
"""

import itertools
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

LOOKBACK_S = 300.0
Labels = frozenset[tuple[str, str]]  # with the metric's name as `__name__`
Vector = dict[Labels, float]
Series = Mapping[Labels, Sequence[tuple[float, float]]]  # time in seconds and value, in order
Node = Callable[["Series", float], Any]  # a vector, or a number

_TOKEN = re.compile(
    r'\s*(?:(?P<number>\d+(?:\.\d+)?(?![\w.]))|(?P<name>[A-Za-z_:][\w:]*)|(?P<text>"[^"]*")|(?P<range>\[\w+\])'
    r"|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/(){},=<>]))"
)
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}


class Expression:
    """A parsed expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = list(_tokens(text))
        self._place = 0
        self._node = self._either()
        if self._place != len(self._tokens):
            raise ValueError(f"{self.text!r}: cannot read {self._tokens[self._place :]}")

    def at(self, series: Series, time_s: float) -> Vector:
        """Its value at a time: a vector."""
        found = self._node(series, time_s)
        assert isinstance(found, dict), f"{self.text!r} is a number"
        return found

    # Reading

    def _peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._peek()
        if wanted and token not in wanted:
            raise ValueError(f"{self.text!r}: {token!r} where {' or '.join(wanted)} must stand")
        self._place += 1
        return token

    def _either(self) -> Node:
        left = self._both()
        while self._peek() == "or":
            self._take()
            matching = self._matching()
            left = _or(left, self._both(), matching)
        return left

    def _both(self) -> Node:
        left = self._compared()
        while self._peek() == "and":
            self._take()
            matching = self._matching()
            left = _and(left, self._compared(), matching)
        return left

    def _compared(self) -> Node:
        left = self._summed()
        while self._peek() in _COMPARISONS:
            sign = self._take()
            left = _filtered(left, _COMPARISONS[sign], float(self._take()))
        return left

    def _summed(self) -> Node:
        left = self._multiplied()
        while self._peek() in ("+", "-"):
            left = _arithmetic(left, _ARITHMETIC[self._take()], self._multiplied())
        return left

    def _multiplied(self) -> Node:
        left = self._single()
        while self._peek() in ("*", "/"):
            left = _arithmetic(left, _ARITHMETIC[self._take()], self._single())
        return left

    def _single(self) -> Node:
        token = self._take()
        if token == "(":
            inner = self._either()
            self._take(")")
            return inner
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return lambda series, time_s: float(token)
        if token in _AGGREGATIONS:
            return self._aggregated(_AGGREGATIONS[token])
        if token in ("rate", "increase") and self._peek() == "(":
            self._take("(")
            matchers = self._selector(self._take())
            range_s = _seconds(self._take()[1:-1])
            self._take(")")
            return _increased(matchers, range_s, per_s=token == "rate")
        matchers = self._selector(token)
        return lambda series, time_s: _instant(series, matchers, time_s)

    def _aggregated(self, aggregate: Callable[[list[float]], float]) -> Node:
        grouping = self._take() if self._peek() in ("by", "without") else "by"
        names = self._names() if self._peek() == "(" and self._tokens[self._place - 1] == grouping else frozenset()
        self._take("(")
        inner = self._either()
        self._take(")")
        keep = (lambda name: name in names) if grouping == "by" else (lambda name: name not in names | {"__name__"})

        def node(series: Series, time_s: float) -> Vector:
            groups: dict[Labels, list[float]] = {}
            for labels, value in inner(series, time_s).items():
                groups.setdefault(frozenset(pair for pair in labels if keep(pair[0])), []).append(value)
            return {labels: aggregate(values) for labels, values in groups.items()}

        return node

    def _matching(self) -> Callable[[Labels], Labels]:
        if self._peek() not in ("on", "ignoring"):
            return _unnamed
        on, names = self._take() == "on", self._names()
        return lambda labels: frozenset(pair for pair in _unnamed(labels) if (pair[0] in names) == on)

    def _names(self) -> frozenset[str]:
        self._take("(")
        names = set()
        while self._peek() != ")":
            names.add(self._take())
            if self._peek() == ",":
                self._take()
        self._take(")")
        return frozenset(names)

    def _text(self) -> str:
        token = self._take()
        if not token.startswith('"'):
            raise ValueError(f"{self.text!r}: {token!r} where a text must stand")
        return token[1:-1]

    def _selector(self, metric: str) -> list[tuple[str, str, str]]:
        if not re.fullmatch(r"[A-Za-z_:][\w:]*", metric):
            raise ValueError(f"{self.text!r}: {metric!r} is no metric")
        matchers = [("__name__", "=", metric)]
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                matchers.append((self._take(), self._take("=", "!=", "=~", "!~"), self._text()))
                if self._peek() == ",":
                    self._take()
            self._take("}")
        return matchers


def _tokens(text: str) -> Iterator[str]:
    place = 0
    text = text.rstrip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"{text!r}: cannot read {text[place:]!r}")
        yield found[0].strip()
        place = found.end()


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * _UNITS_S[duration[-1]]


def _matches(labels: Labels, matchers: Sequence[tuple[str, str, str]]) -> bool:
    given = dict(labels)
    for name, sign, wanted in matchers:
        value = given.get(name, "")
        same = bool(re.fullmatch(wanted, value)) if "~" in sign else value == wanted
        if same == sign.startswith("!"):
            return False
    return True


def _instant(series: Series, matchers: Sequence[tuple[str, str, str]], time_s: float) -> Vector:
    """The newest sample of each series, unless it is older than five minutes."""
    found = {}
    for labels, samples in series.items():
        if _matches(labels, matchers):
            newest = [value for at_s, value in samples if time_s - LOOKBACK_S <= at_s <= time_s]
            if newest:
                found[labels] = newest[-1]
    return found


def _increased(matchers: Sequence[tuple[str, str, str]], range_s: float, *, per_s: bool) -> Node:
    def node(series: Series, time_s: float) -> Vector:
        found = {}
        for labels, samples in series.items():
            within = [(at_s, value) for at_s, value in samples if time_s - range_s <= at_s <= time_s]
            if _matches(labels, matchers) and len(within) > 1:
                found[_unnamed(labels)] = _extrapolated(within, time_s - range_s, time_s) / (range_s if per_s else 1)
        return found

    return node


def _extrapolated(samples: Sequence[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """The increase over a range as Prometheus has it: samples hardly ever stand at both of its ends."""
    values = [value for _, value in samples]
    resets = sum(before for before, after in itertools.pairwise(values) if after < before)
    increase = values[-1] - values[0] + resets
    first_s, last_s = samples[0][0], samples[-1][0]
    sampled_s = last_s - first_s
    between_s = sampled_s / (len(samples) - 1)
    to_begin_s, to_end_s = first_s - begin_s, end_s - last_s
    if increase > 0 and values[0] >= 0:
        to_begin_s = min(to_begin_s, sampled_s * values[0] / increase)  # a counter begins at zero at most
    whole_s = sampled_s
    for gap_s in (to_begin_s, to_end_s):
        whole_s += gap_s if gap_s < 1.1 * between_s else between_s / 2
    return increase * whole_s / sampled_s


def _unnamed(labels: Labels) -> Labels:
    return frozenset(pair for pair in labels if pair[0] != "__name__")


def _filtered(inner: Node, compare: Callable[[float, float], bool], number: float) -> Node:
    return lambda series, time_s: {
        labels: value for labels, value in inner(series, time_s).items() if compare(value, number)
    }


def _arithmetic(left: Node, operate: Callable[[float, float], float], right: Node) -> Node:
    def node(series: Series, time_s: float) -> Vector:
        ours, theirs = left(series, time_s), right(series, time_s)
        if isinstance(theirs, float):
            return {_unnamed(labels): operate(value, theirs) for labels, value in ours.items()}
        others = {_unnamed(labels): value for labels, value in theirs.items()}
        pairs = {_unnamed(labels): value for labels, value in ours.items()}
        return {
            labels: operate(value, others[labels])
            if others[labels] or operate is not operator.truediv
            else float("nan")
            for labels, value in pairs.items()
            if labels in others
        }

    return node


def _and(left: Node, right: Node, key: Callable[[Labels], Labels]) -> Node:
    def node(series: Series, time_s: float) -> Vector:
        others = {key(labels) for labels in right(series, time_s)}
        return {labels: value for labels, value in left(series, time_s).items() if key(labels) in others}

    return node


def _or(left: Node, right: Node, key: Callable[[Labels], Labels]) -> Node:
    def node(series: Series, time_s: float) -> Vector:
        ours = left(series, time_s)
        known = {key(labels) for labels in ours}
        return ours | {labels: value for labels, value in right(series, time_s).items() if key(labels) not in known}

    return node


# Tests of rules, in promtool's format


def parse_series(text: str) -> Labels:
    """`metric{label="value",...}`"""
    metric, _, rest = text.partition("{")
    pairs = re.findall(r'(\w+)="([^"]*)"', rest)
    return frozenset([("__name__", metric), *pairs])


def expand(values: str, interval_s: float) -> list[tuple[float, float]]:
    """`1+2x3 0x5 _` as promtool expands it."""
    found: list[float | None] = []
    for part in values.split():
        match = re.fullmatch(r"(-?[\d.]+)(?:([+-][\d.]+))?(?:x(\d+))?", part)
        if part == "_":
            found.append(None)
        elif match is None:
            raise ValueError(f"cannot read {part!r}")
        else:
            first, step, times = float(match[1]), float(match[2] or 0), int(match[3] or 0)
            found += [first + step * number for number in range(times + 1)]
    return [(number * interval_s, value) for number, value in enumerate(found) if value is not None]


def firing(rule: Mapping[str, Any], series: Series, every_s: float, at_s: float) -> list[dict[str, str]]:
    """The labels of the alerts of a rule that fire at a time, when it is evaluated at intervals from 0 on."""
    expression, for_s = Expression(rule["expr"]), _seconds(rule.get("for", "0s"))
    since: dict[Labels, float] = {}
    fires: list[Labels] = []
    for number in range(int(at_s // every_s) + 1):
        time_s = number * every_s
        active = {_unnamed(labels) for labels in expression.at(series, time_s)}
        since = {labels: since.get(labels, time_s) for labels in active}
        fires = [labels for labels in active if time_s - since[labels] >= for_s]
    return sorted((dict(labels) | rule["labels"] for labels in fires), key=lambda labels: sorted(labels.items()))
