"""The Lua scripts of lines (`lua/`), as a server gets them."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

# All other scripts run on a server without memory, too: they end requests, and so make room.
_REFUSED_WITHOUT_MEMORY = ("admit", "enter")


@dataclass(frozen=True, slots=True)
class Script:
    """A script with what all share before it. sha: what a server calls it."""

    text: str
    sha: str


@cache
def scripts() -> dict[str, Script]:
    """All scripts, by name."""
    folder = files(__package__) / "lua"
    common = (folder / "common.lua").read_text(encoding="utf-8")
    found = {}
    for path in folder.iterdir():
        if (name := path.name.removesuffix(".lua")) != "common":
            flags = "" if name in _REFUSED_WITHOUT_MEMORY else " flags=allow-oom"
            text = f"#!lua{flags}\n{common}{path.read_text(encoding='utf-8')}"
            found[name] = Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
    return found
