"""Types of options (shares, durations, learning rates, choices among many names), and an option of several commands."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from modeling.data.layout import LAYOUTS
from orchestrator.contract.errors import UsageError
from orchestrator.contract.ledger.words import PRIORITIES

if TYPE_CHECKING:
    from orchestrator.contract.jobs.requests import MaxFailures

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

layout_option = click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="What the folders in DATA are; default: found by their names and by what they hold. With parts, folders that "
    "are not named as a part are left out.",
)
weights_key_option = click.option(
    "--weights-key",
    metavar="KEY",
    help="Which of several sets of weights in a file, such as state_dict_ema; default: the averaged ones (EMA).",
)

notify_option = click.option(
    "--notify",
    metavar="URL",
    help="URL that gets a signed POST when the job ends; default: that of the settings, if there is one.",
)
priority_option = click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    default="normal",
    show_default=True,
    help="Share of the workers' time beside other jobs: high counts 16, normal 4, low 1. Trainings and evaluations "
    "wait in this order.",
)


class Share(click.ParamType[float]):
    """A share such as 0.5% or 0.005, above 0 and below 1."""

    name = "P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", str(value))
        share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
        if not 0 < share < 1:
            self.fail(f"{value!r} is not a share between 0 and 1, such as 0.5% or 0.005", param, ctx)
        return share


class Duration(click.ParamType[float]):
    """Seconds, written such as 90s, 10m, 1.5h or 30d."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value))
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a duration above 0, such as 90s, 10m, 1.5h or 30d", param, ctx)
        return float(match[1]) * _UNITS_S[match[2]]


class FailureLimit(click.ParamType["MaxFailures"]):
    """A count such as 20, or a share such as 0.5%."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "MaxFailures":
        from orchestrator.contract.jobs.requests import MaxFailures  # pydantic, which help has no use for

        if isinstance(value, MaxFailures):
            return value
        share = re.fullmatch(r"(\d+(?:\.\d+)?)%", value)
        if share and float(share[1]) <= 100:
            return MaxFailures(share=float(share[1]) / 100)
        if value.isdecimal():
            return MaxFailures(count=int(value))
        return self.fail(f"{value!r} is neither a count such as 20 nor a share such as 0.5%", param, ctx)


class Parsed(click.ParamType[Any]):
    """What a function reads, which raises UsageError for a text that it cannot read."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(str(value))
        except UsageError as err:
            self.fail(str(err), param, ctx)


class LearningRate(click.ParamType[float | str]):
    """A number above 0, or `auto`."""

    name = "RATE|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto":
            return "auto"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number such as 0.001 nor auto", param, ctx)


class OneOf(click.ParamType[str]):
    """A choice among more names than help can list."""

    def __init__(self, name: str, choices: Callable[[], list[str]], advice: str) -> None:
        self.name = name
        self._choices = choices
        self._advice = advice

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        choices = self._choices()
        if value not in choices:
            near = get_close_matches(str(value).lower(), choices, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            self.fail(f"unknown {self.name.lower()} {value!r}; {hint}{self._advice}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(choice) for choice in self._choices() if choice.startswith(incomplete)]


def _architectures() -> list[str]:
    from modeling.networks.architectures import ARCHITECTURES

    return list(ARCHITECTURES)


architecture_type = OneOf("ARCHITECTURE", _architectures, "`pigeonhole models architectures` lists them")
