"""The answers of a line as they come."""

import time
from collections.abc import Iterator
from typing import cast

from orchestrator.contract.lines.answers import Answer, decode_record
from orchestrator.contract.lines.store import LineStore

POLL_MS = 200
_MOST_AT_ONCE = 1_000


def follow_answers(store: LineStore, last: int) -> Iterator[list[Answer]]:
    """The last so many answers of a line, then, without end, those that come, in the order of their times.

    What is late is answered on the way: who follows may be the only one alive. Each step yields what has come since
    the one before, which may be nothing; the caller waits between two steps as `wait_for_more` does.
    """
    seconds, microseconds = store.client.time()
    since = float(seconds * 1000 + microseconds // 1000)
    newest = _entries(store.client.zrange(store.key("answered"), -last, -1, withscores=True) if last else [])
    seen = {key for key, at in newest if at >= since}
    yield _read(store, [key for key, _ in newest])
    while True:
        most = len(seen) + _MOST_AT_ONCE  # answers of one millisecond may come in two scripts, in any order of keys
        found = _entries(
            store.client.zrange(
                store.key("answered"), cast(int, since), cast(int, "+inf"), byscore=True, withscores=True,
                offset=0, num=most,
            )
        )  # fmt: skip
        new = [(key, at) for key, at in found if key not in seen]
        if new:
            latest = new[-1][1]
            seen = {key for key, at in found if at == latest}
            since = latest
        yield _read(store, [key for key, _ in new])


def wait_for_more(store: LineStore) -> None:
    """Answer what is late, and wait a moment: until the next deadline, if that is near."""
    time.sleep(max(10, store.sweep(POLL_MS)) / 1000)


def _entries(found: object) -> list[tuple[bytes, float]]:
    return cast(list[tuple[bytes, float]], found)


def _read(store: LineStore, keys: list[bytes]) -> list[Answer]:
    if not keys:
        return []
    records = cast("list[bytes | None]", store.client.hmget(store.key("answers"), keys))
    return [decode_record(record) for record in records if record is not None]
