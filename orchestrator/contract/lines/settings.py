"""The settings of a line: what an operator says of it, checked."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from modeling.durable import STRICT, Number, decode_json, validated
from modeling.names import is_text
from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.limits import LONGEST_DEADLINE_MS
from orchestrator.contract.server_url import parse_url

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME_OF_MODEL_LINE = re.compile(r"@[a-z0-9][a-z0-9._-]{0,99}(@[a-z0-9_-]{1,50})?")
LONGEST_KEPT_S = 10 * 366 * 86_400
LINES_REMEMBERED = 64


def _bin_name(name: str) -> str:
    if not name or len(name.encode("utf-8", "surrogatepass")) > 100 or not is_text(name) or not name.isprintable():
        raise ValueError(f"a bin's name is 1 to 100 printable bytes of text, not {name!r}")
    if "," in name or "=" in name:
        raise ValueError(f"a bin's name holds no comma and no equals sign: {name!r}")
    return name


def _unique(bins: tuple[str, ...]) -> tuple[str, ...]:
    if not bins or len(set(bins)) != len(bins):
        raise ValueError(f"the bins of a label must be different, and at least one: {list(bins)!r}")
    return bins


Bin = Annotated[str, AfterValidator(_bin_name)]
Bins = Annotated[tuple[Bin, ...], AfterValidator(_unique)]


@dataclass(frozen=True, slots=True)
class LineSettings:
    """A line as its operator set it.

    model: `name@alias` or any other reference. bins: a label's bins in order; the next one is taken where one is full
    or disabled. fallback: where no decision could be made in time. review: where a person may still answer.
    max_requests, max_bytes: that may wait. max_image_bytes: of one image. keep_s: how long an answer can be looked up.
    keep_images_s, keep_images_bytes: bounds on the images that are kept. keep_share: the share of accepted images that
    is kept at random. roots: folders below which images may be pushed by their path. degraded: a smaller model that
    answers where the first would be late. server: the URL of a server of its own.
    """

    name: str
    model: str
    fallback: Bin
    review: Bin
    deadline_ms: Annotated[int, Field(ge=1, le=LONGEST_DEADLINE_MS)] = 500
    bins: dict[str, Bins] = field(default_factory=dict)
    degraded: str | None = None
    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    max_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    max_image_bytes: Annotated[int, Field(ge=1, le=256 << 20)] = 16 << 20
    keep_s: Annotated[int, Field(ge=60, le=LONGEST_KEPT_S)] = 7 * 86_400
    keep_images_s: Annotated[int, Field(ge=0, le=LONGEST_KEPT_S)] = 7 * 86_400
    keep_images_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    keep_share: Annotated[Number, Field(ge=0, le=1)] = 0.01
    roots: tuple[str, ...] = ()
    server: str | None = None

    __pydantic_config__ = STRICT

    @property
    def of_model(self) -> bool:
        """Whether nobody made this line: a gateway opened it, since a model was asked for (`model_lines`)."""
        return self.name.startswith("@")

    @property
    def keeps_images(self) -> bool:
        """Whether any image is kept."""
        return self.keep_images_bytes > 0 and self.keep_images_s > 0

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, what: str = "the line") -> Self:
        """The reverse of `to_json`; keys with a default may be left out.

        Raises UsageError, which names `what`, the key and the value.
        """
        settings = validated(cls, value, what, error=UsageError, whole=False)
        check_line_name(settings.name)
        if any(not Path(root).is_absolute() for root in settings.roots):
            raise UsageError(f"{what}: roots: folders must be absolute, not {list(settings.roots)!r}")
        if settings.server is not None:
            parse_url(settings.server)
        return settings

    def labels_without_bin(self, labels: Iterable[str]) -> list[str]:
        """The labels of a model that the bin map lacks: their items are answered with `no_bin`."""
        return [label for label in labels if label not in self.bins]


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is now: its settings, and what changes while it runs.

    map_version: counts the changes of what decides the bin. full, disabled: bins that take no items now.
    epoch: another one each time when the line was entered into an empty server.
    """

    settings: LineSettings
    map_version: int = 1
    paused: bool = False
    full: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    created_ms: int = 0

    __pydantic_config__ = STRICT

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def closed(self) -> frozenset[str]:
        """The bins that take no items now."""
        return frozenset(self.full) | frozenset(self.disabled)

    def encode(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def decode(cls, data: bytes | str, what: str) -> Self:
        """Raises UsageError where it is none of ours."""
        line = validated(cls, decode_json(data, what, error=UsageError), what, error=UsageError, whole=False)
        check_line_name(line.name)
        return line

    @staticmethod
    @lru_cache(maxsize=LINES_REMEMBERED)
    def decode_again(data: bytes, what: str) -> "Line":
        """The same for what is read again and again: with a thousand labels, a look at a line takes milliseconds."""
        return Line.decode(data, what)


def check_line_name(name: str) -> str:
    """The name, if it is valid; `@MODEL` is a line of a model. Raises UsageError."""
    if not (_NAME.fullmatch(name) or _NAME_OF_MODEL_LINE.fullmatch(name)):
        raise UsageError(
            f"line name {name!r} is not valid: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit"
        )
    return name
