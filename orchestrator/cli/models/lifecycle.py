"""`pigeonhole models alias` and `remove`."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import (
    confirm_removal,
    json_option,
    print_json,
    print_message,
    print_table,
    size_text,
)
from orchestrator.contract.errors import UsageError

if TYPE_CHECKING:
    from modeling.registry.store import ModelStore


@click.command("alias")
@click.argument("model")
@click.argument("alias", required=False)
@click.option("--remove", is_flag=True, help="Remove ALIAS; its version stays.")
@json_option
def alias_model(model: str, alias: str | None, remove: bool, as_json: bool) -> None:
    """Let ALIAS stand for MODEL, a version: `name@alias` then names it, until the alias is moved.

    Without ALIAS, list the aliases of MODEL. Jobs that were submitted before keep their version.

    \b
    Examples:
      pigeonhole models alias birds@3 champion
      pigeonhole models alias birds
      pigeonhole models alias birds champion --remove
    """
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    store = ModelStore(get_settings().models)
    if alias is None:
        if remove:
            raise UsageError("--remove needs the ALIAS to remove; name it after the model")
        _list(store, model, as_json=as_json)
    elif remove:
        _drop(store, model, alias, as_json=as_json)
    else:
        _set(store, model, alias, as_json=as_json)


def _list(store: "ModelStore", model: str, *, as_json: bool) -> None:
    name = store.resolve(model).name
    aliases = {alias: f"{name}@{number}" for alias, number in store.aliases(name).items()}
    if as_json:
        print_json(aliases)
    elif aliases:
        print_table(("alias", "model"), [(f"{name}@{alias}", ref) for alias, ref in aliases.items()])
    else:
        print_message(f"{name} has no aliases; `pigeonhole models alias {name}@VERSION champion` sets one")


def _set(store: "ModelStore", model: str, alias: str, *, as_json: bool) -> None:
    version = store.resolve(model)
    number = store.set_alias(version, alias)
    before = None if number is None else f"{version.name}@{number}"
    if as_json:
        print_json({"alias": alias, "model": version.ref, "before": before})
        return
    change = "new" if before is None else "unchanged" if before == version.ref else f"it was {before}"
    print_message(f"{version.name}@{alias} is {version.ref} now ({change})")


def _drop(store: "ModelStore", model: str, alias: str, *, as_json: bool) -> None:
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.removal import check_alias_unused

    name, _, rest = model.partition("@")
    if rest:
        raise UsageError(f"an alias belongs to the whole model: give {name!r}, not {model!r}")
    check_alias_unused(get_settings(), name, alias)
    before = f"{name}@{store.drop_alias(name, alias)}"
    if as_json:
        print_json({"alias": alias, "model": None, "before": before})
    else:
        print_message(f"{name}@{alias} is removed; it was {before}")


@click.command("remove")
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def remove_model(model: str, yes: bool, as_json: bool) -> None:
    """Remove MODEL, one version as `name@number`, permanently. Its number is never used again.

    A version that an alias, an active job or a line uses is not removed.

    \b
    Examples:
      pigeonhole models remove birds@1
      pigeonhole models remove birds@1 --yes --json
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.removal import check_removable, find_version, remove_version

    settings = get_settings()
    version = find_version(settings, model)
    size_bytes = version.size_bytes()
    check_removable(settings, version)
    if not yes:
        confirm_removal(f"remove {version.ref} ({version.digest[:12]}, {size_text(size_bytes)}) permanently?")
    remove_version(settings, version)
    if as_json:
        print_json({"removed": version.ref, "digest": version.digest, "size_bytes": size_bytes})
    else:
        print_message(f"removed {version.ref}, {size_text(size_bytes)}")
