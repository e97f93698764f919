"""Words of the ledger that requests and job folders have, too: to import them takes no Redis client."""

from typing import Literal, get_args

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
PausedBy = Literal["operator", "storage"]
PAUSED_BY: tuple[PausedBy, ...] = get_args(PausedBy)
