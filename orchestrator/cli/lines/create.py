"""`pigeonhole lines create` and `set`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.lines.facts import changes
from orchestrator.cli.lines.options import LineName, given_settings, line_options
from orchestrator.cli.output import json_option, print_json, print_message
from orchestrator.contract.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.contract.lines.settings import Line, LineSettings
    from orchestrator.lines.labels import MapFindings

_REQUIRED = {"model": "--model", "fallback": "--fallback", "review": "--review"}


@click.command("create")
@click.argument("line", type=LineName(), required=False)
@line_options
@click.option("--server", help="URL of a server of the line's own, for its images and answers; default: the main one.")
@json_option
def create_line(line: str | None, server: str | None, as_json: bool, **options: Any) -> None:
    """Create LINE: pushed images get a bin by their label, before their deadline. Workers open it at once.

    A whole line can stand in a file with --file, its name as `name`.

    \b
    Examples:
      pigeonhole lines create birds --model birds@champion --deadline 500ms --bin owl=1,2 --bin wren=3 \\
          --fallback reject --review hand
      pigeonhole lines create --file birds.toml
    """
    from orchestrator.cli.lines.connect import open_registry
    from orchestrator.contract.server import connect_raw, require_answer
    from orchestrator.lines.line_file import checked_settings

    values = given_settings(options)
    if server is not None:
        values["server"] = server
    if line is not None:
        values["name"] = line
    _require(values)
    settings = checked_settings(values, f"line {values['name']!r}")
    if settings.of_model:
        raise UsageError(
            f"line name {settings.name!r}: names that begin with @ are those of models, opened by a gateway"
        )
    findings = _check(settings, allow_unknown=options["allow_unknown_labels"])
    registry = open_registry(join=True)
    if settings.server is not None:
        require_answer(connect_raw(settings.server), settings.server)
    made = registry.create(settings)
    _report(made, findings, as_json=as_json, words="created")


@click.command("set")
@click.argument("line", type=LineName())
@line_options
@click.option("--remove-bin", "removed", multiple=True, metavar="LABEL", help="Label that has no bin any more.")
@click.option("--no-degraded", is_flag=True, help="No smaller model answers any more.")
@click.option("--no-roots", is_flag=True, help="No image can be pushed by its path any more.")
@json_option
def set_line(line: str, as_json: bool, **options: Any) -> None:
    """Change settings of LINE while it runs; what is not given stays as it is.

    --bin changes the bins of its label and leaves the others; a file with `bins` replaces the whole map. Workers load
    another model beside the old one, and take it between two batches.

    \b
    Examples:
      pigeonhole lines set birds --deadline 300ms
      pigeonhole lines set birds --bin owl=5 --remove-bin wren
    """
    from orchestrator.cli.lines.connect import open_registry

    values = given_settings(options)
    if not (values or options["removed"] or options["no_degraded"] or options["no_roots"]):
        raise UsageError("nothing to change; give an option such as --deadline, or a --file")
    found: list[tuple[Line, MapFindings]] = []

    def change(present: "Line") -> "Line":
        settings = _changed(present.settings, values, options)
        found.append((present, _check(settings, allow_unknown=options["allow_unknown_labels"])))
        return _with_settings(present, settings)

    made = open_registry().change(line, change)
    before, findings = found[-1]
    _report(made, findings, as_json=as_json, words="; ".join(changes(before, made)) or "unchanged")


def _require(values: Mapping[str, Any]) -> None:
    if "name" not in values:
        raise UsageError("the line needs a name: give LINE, or `name` in the file")
    missing = [option for name, option in _REQUIRED.items() if values.get(name) is None]
    if missing:
        raise UsageError(f"line {values['name']!r} needs {', '.join(missing)}")


def _changed(settings: "LineSettings", values: Mapping[str, Any], options: Mapping[str, Any]) -> "LineSettings":
    """The settings after a change; name and server are fixed: what waits and the answers are there."""
    from orchestrator.lines.line_file import checked_settings

    for name in ("name", "server"):
        if name in values and values[name] != getattr(settings, name):
            raise UsageError(f"the {name} of a line cannot be changed; create another line")
    present = settings.to_json()
    bins: dict[str, Any] = dict(values.get("bins", {}))
    if options["bins"] and options["file"] is None:
        bins = {**present["bins"], **bins}
    elif "bins" not in values:
        bins = dict(present["bins"])
    for label in options["removed"]:
        if bins.pop(label, None) is None:
            raise UsageError(f"--remove-bin {label!r}: the map has no such label")
    cleared: dict[str, Any] = {"degraded": None} if options["no_degraded"] else {}
    cleared |= {"roots": []} if options["no_roots"] else {}
    return checked_settings({**present, **values, "bins": bins, **cleared}, f"line {settings.name!r}")


def _with_settings(line: "Line", settings: "LineSettings") -> "Line":
    """The line with other settings; a bin that the map has no more is neither full nor disabled."""
    left = {name for bins in settings.bins.values() for name in bins}
    full, disabled = (tuple(name for name in names if name in left) for names in (line.full, line.disabled))
    return replace(line, settings=settings, full=full, disabled=disabled)


def _check(settings: "LineSettings", *, allow_unknown: bool) -> "MapFindings":
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings
    from orchestrator.lines.labels import check_map

    findings = check_map(settings, ModelStore(get_settings().models))
    if not allow_unknown:
        findings.require_known()
    return findings


def _report(line: "Line", findings: "MapFindings", *, as_json: bool, words: str) -> None:
    from orchestrator.lines.facts import line_facts

    for warning in findings.warnings():
        print_message(f"warning: {warning}", color="yellow")
    if as_json:
        print_json({**line_facts(line), "labels_without_bin": findings.without_bin})
    else:
        print_message(f"line {line.name}: {words}")
