"""The Lua scripts of lines (`lua/`), as a server gets them."""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

# All other scripts run on a server without memory, too: they end requests, and so make room.
_REFUSED_WITHOUT_MEMORY = ("admit", "enter")
_COMMENT = re.compile(r"(?m)(?:^|(?<=\s))--.*$")
_NAMES = re.compile(r"local (?:function (?P<function>\w+)|(?P<variables>\w+(?:, \w+)*))")


@dataclass(frozen=True, slots=True)
class Script:
    """A script with what it uses of that which all share. sha: what a server calls it."""

    text: str
    sha: str


@cache
def scripts() -> dict[str, Script]:
    """All scripts, by name."""
    folder = files(__package__) / "lua"
    common = _blocks((folder / "common.lua").read_text(encoding="utf-8"))
    found = {}
    for path in folder.iterdir():
        if (name := path.name.removesuffix(".lua")) != "common":
            flags = "" if name in _REFUSED_WITHOUT_MEMORY else " flags=allow-oom"
            body = _without_comments(path.read_text(encoding="utf-8"))
            text = f"#!lua{flags}\n{_used(common, body)}{body}"
            found[name] = Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
    return found


def _blocks(common: str) -> list[tuple[set[str], str]]:
    """What scripts share, each with the names that it defines: functions and variables begin a line with `local`."""
    blocks = []
    for text in re.split(r"(?m)^(?=local )", _without_comments(common))[1:]:
        match = _NAMES.match(text)
        assert match is not None
        names = match["function"] or match["variables"]
        blocks.append((set(names.split(", ")), text))
    return blocks


def _used(common: list[tuple[set[str], str]], body: str) -> str:
    """The blocks that a script needs, in their order: a server makes every function anew for each call."""
    words, chosen = _words(body), []
    for names, text in reversed(common):
        if names & words:
            words |= _words(text)
            chosen.append(text)
    return "".join(reversed(chosen))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _without_comments(text: str) -> str:
    return "".join(f"{line}\n" for line in _COMMENT.sub("", text).splitlines() if line.strip())
