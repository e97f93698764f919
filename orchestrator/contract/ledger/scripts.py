"""The Lua scripts of the ledger: each file of `lua/` but those that others share."""

from importlib.resources import files

# What a script begins with, after `common`.
_SHARED = {"take_turn": "turns", "end_turn": "turns", "next_training": "turns"}


def read_scripts() -> dict[str, str]:
    """The scripts by name, each with what it shares in front of it."""
    folder = files(__package__) / "lua"
    texts = {
        path.name.removesuffix(".lua"): path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.name.endswith(".lua")
    }
    shared = {name: texts.pop(name) for name in ("common", *set(_SHARED.values()))}
    return {
        name: shared["common"] + (shared[_SHARED[name]] if name in _SHARED else "") + text
        for name, text in texts.items()
    }
