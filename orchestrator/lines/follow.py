"""The answers of a line as they come."""

import time
from typing import Any, cast

from orchestrator.contract.lines.answers import Answer, decode_record
from orchestrator.contract.lines.store import LineStore

POLL_MS = 200
_MOST_AT_ONCE = 1_000


class AnswerFollower:
    """The last so many answers of a line, then those that come, in the order of their times.

    A read that failed, since the server was away, can be made again.
    """

    def __init__(self, store: LineStore, last: int) -> None:
        self._store = store
        self._last = last
        self._since: float | None = None
        self._seen: set[bytes] = set()  # of the time `since`

    def read(self) -> list[Answer]:
        """What has come since the last call, which may be nothing; `wait_for_more` waits between two calls."""
        return self._begin() if self._since is None else self._go_on(self._since)

    def _begin(self) -> list[Answer]:
        seconds, microseconds = self._store.client.time()
        since = float(seconds * 1000 + microseconds // 1000)
        newest = self._range(-self._last, -1) if self._last else []
        answers = _read(self._store, [key for key, _ in newest])
        self._since, self._seen = since, {key for key, at in newest if at >= since}
        return answers

    def _go_on(self, since: float) -> list[Answer]:
        most = len(self._seen) + _MOST_AT_ONCE  # answers of one millisecond may come in two scripts, in any order
        found = self._range(cast(int, since), cast(int, "+inf"), byscore=True, offset=0, num=most)
        new = [(key, at) for key, at in found if key not in self._seen]
        answers = _read(self._store, [key for key, _ in new])
        if new:
            self._since = new[-1][1]
            self._seen = {key for key, at in found if at == self._since}
        return answers

    def _range(self, start: int, end: int, **options: Any) -> list[tuple[bytes, float]]:
        found = self._store.client.zrange(self._store.key("answered"), start, end, withscores=True, **options)
        return cast(list[tuple[bytes, float]], found)


def wait_for_more(store: LineStore) -> None:
    """Answer what is late, and wait a moment: until the next deadline, if that is near."""
    time.sleep(max(10, store.sweep(POLL_MS)) / 1000)


def _read(store: LineStore, keys: list[bytes]) -> list[Answer]:
    if not keys:
        return []
    records = cast("list[bytes | None]", store.client.hmget(store.key("answers"), keys))
    return [decode_record(record) for record in records if record is not None]
