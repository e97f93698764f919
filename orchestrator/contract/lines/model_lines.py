"""Lines that nobody made: a gateway opens one for each model that is asked for by its name.

They are lines as all others, on the disk and on the server, but have no bins, and go when nobody has used them for a
while. The line of `birds` is `@birds`, that of `birds@3` or of an alias `@birds@3`, `@birds@champion`.
"""

from typing import cast

import redis

from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.lines.commands import line_prefix
from orchestrator.contract.lines.registry import LINES_KEY, VERSION_KEY, LineRegistry
from orchestrator.contract.lines.settings import LineSettings

IDLE_S = 900  # after so long without a use the line goes, and workers forget its model
USE_AGAIN_S = 10.0  # how often a use must be told while a line is used
MOST_OPEN = 8  # a worker holds the model of each
STAYS_OPEN_S = 60  # one that was used within this time does not make room for another
DEADLINE_S = 50.0  # of what has no deadline of its own; clients of HTTP often wait for a minute
NO_BIN = "none"


def model_line_name(reference: str) -> str:
    """The line of a model, `name`, `name@2` or `name@alias`."""
    return f"@{reference.removesuffix('@latest')}"


def model_line_settings(reference: str) -> LineSettings:
    """Answers are kept for a minute: a request that is sent twice gets the same one, and nobody looks them up."""
    return LineSettings.from_json(
        {
            "name": model_line_name(reference),
            "model": reference,
            "fallback": NO_BIN,
            "review": NO_BIN,
            "deadline_ms": round(DEADLINE_S * 1000),
            "max_image_bytes": 64 << 20,
            "keep_s": 60,
            "keep_images_bytes": 0,
            "keep_share": 0.0,
        }
    )


class ModelLines:
    """Opens and closes the lines of models."""

    def __init__(self, registry: LineRegistry, client: redis.Redis) -> None:
        """client: of the main server; it must not decode replies."""
        self._registry = registry
        self._client = client

    def use(self, reference: str) -> None:
        """Let workers serve a model, and go on serving it. Call it before the first push, and every `USE_AGAIN_S`.

        Raises UnavailableError where as many are open as may be.
        """
        settings = model_line_settings(reference)
        with self._client.pipeline() as pipeline:  # whole, so that `close_unused` comes before or after it
            pipeline.set(_used_key(settings.name), 1, ex=IDLE_S)
            pipeline.hexists(LINES_KEY, settings.name)
            _, known = pipeline.execute()
        if not known:
            self._make_room(settings.name)
            self._registry.ensure(settings)

    def names(self) -> list[str]:
        """The lines of models that are open."""
        keys = cast(list[bytes], self._client.hkeys(LINES_KEY))
        return sorted(key.decode() for key in keys if key.startswith(b"@"))

    def is_used(self, name: str) -> bool:
        """Whether somebody has used the line within `IDLE_S`."""
        return bool(self._client.exists(_used_key(name)))

    def close_unused(self, name: str) -> None:
        """Remove a line, unless somebody has used it. Raises NotFoundError where it has gone."""
        self._registry.remove(name, unless=lambda: not self._leave(name))

    def _leave(self, name: str) -> bool:
        """Take a line from the server's lines if nobody uses it, in one step; whether that was done."""
        with self._client.pipeline() as pipeline:
            pipeline.watch(_used_key(name))  # type: ignore[no-untyped-call]
            if pipeline.exists(_used_key(name)):
                return False
            pipeline.multi()
            pipeline.hdel(LINES_KEY, name)
            pipeline.incr(VERSION_KEY)
            try:
                pipeline.execute()
            except redis.WatchError:
                return False
        return True

    def _make_room(self, name: str) -> None:
        """Close the line that was used longest ago where there are too many."""
        others = [other for other in self.names() if other != name]
        if len(others) < MOST_OPEN:
            return
        left_s = {other: self._client.ttl(_used_key(other)) for other in others}
        oldest = min(left_s, key=lambda other: left_s[other])
        if left_s[oldest] > IDLE_S - STAYS_OPEN_S:
            self._client.delete(_used_key(name))
            raise UnavailableError(
                f"{len(others)} models are open ({', '.join(other.removeprefix('@') for other in others)}), which is "
                f"the most; one that was not used for {STAYS_OPEN_S} s makes room; or make lines: `lines create`"
            )
        self._client.delete(_used_key(oldest))
        self.close_unused(oldest)


def _used_key(name: str) -> str:
    return f"{line_prefix(name)}:used"
