"""Bounds of what may be asked of a line; imports nothing, since commands check them before they import more."""

LONGEST_DEADLINE_MS = 3_600_000
MOST_MINUTES = 120  # of counts, as long as the server keeps them: MINUTES_KEPT_S in common.lua
