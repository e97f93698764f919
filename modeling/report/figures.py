"""How figures and long names read: shares as per cent that are never rounded to all or none, counts with separators."""

_SPACE = "\u202f"  # narrow, and no line ends at it
NOTHING = "–"
_ALL = 100
_WIDE_POINTS = 2  # intervals at least so wide need one digit only


def percent(share: float | None) -> str:
    """A share in [0, 1] as `98.4 %`; two digits near the ends, where they tell models apart."""
    if share is None:
        return NOTHING
    if share in (0, 1):
        return f"{100 * share:.0f}{_SPACE}%"
    value, digits = 100 * share, 1 if 0.01 <= share <= 0.99 else 2
    if round(value, digits) in (0, 100):
        return f"under 0.01{_SPACE}%" if share < 0.5 else f"over 99.99{_SPACE}%"
    return f"{value:.{digits}f}{_SPACE}%"


def interval(bounds: tuple[float, float] | None) -> str:
    """Both ends of an interval of shares, `97.1 to 99.0 %`."""
    if bounds is None:
        return NOTHING
    low, high = (100 * bound for bound in bounds)
    digits = 1 if high - low >= _WIDE_POINTS else 2
    written = (f"{bound:.{digits}f}" for bound in (low, high))
    ends = ["100" if float(end) == _ALL else end for end in written]
    return f"{' to '.join(ends)}{_SPACE}%"


def score(value: float) -> str:
    """The score of an answer as `98.4 %`; it is never certain, so never 100."""
    return f"{min(100 * value, 99.9):.1f}{_SPACE}%"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points."""
    return NOTHING if difference is None else f"{100 * difference:.1f}{_SPACE}points"


def count(number: int, singular: str = "", plural: str | None = None) -> str:
    """A number with separators, and what is counted if that is given: `1 image`, `1,234 images`."""
    if not singular:
        return f"{number:,}"
    noun = singular if number == 1 else (f"{singular}s" if plural is None else plural)
    return f"{number:,}\u00a0{noun}"


def shortened(text: str, longest: int) -> str:
    """The text without its middle where it is longer: the ends of file names and labels tell them apart."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"
