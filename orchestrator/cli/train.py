"""`pigeonhole train`."""

import sys
from pathlib import Path

import click

from modeling.architectures import ARCHITECTURES
from modeling.store import ModelStore
from orchestrator.cli.office import open_or_start_office
from orchestrator.cli.output import json_option, print_json, say
from orchestrator.submit import Office
from orchestrator.wishes import TrainWish, check_train


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name to publish the model under; every run adds a version.")
@click.option(
    "--arch", "architecture", default="cnn", show_default=True, type=click.Choice(sorted(ARCHITECTURES)),
    help="Network architecture.",
)  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training images; default: the recipe's.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images a training step; default: the recipe's.")
@click.option("--learning-rate", type=float, help="Highest learning rate; default: the recipe's.")
@click.option("--image-size", type=click.IntRange(min=8), help="Side of the square the network sees, in pixels.")
@click.option(
    "--validation", type=float, default=0.1, show_default=True, help="Share of images that chooses the epoch."
)
@click.option("--test", type=float, default=0.1, show_default=True, help="Share of images kept for the final accuracy.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same model on a CPU."
)
@click.option("--idempotency-key", help="Submit once however often this is called with the same key.")
@click.option("--detach", is_flag=True, help="Print the job's id and return at once.")
@json_option
def train(
    data: Path,
    name: str,
    architecture: str,
    idempotency_key: str | None,
    detach: bool,
    as_json: bool,
    **options: object,
) -> None:
    """Train a classifier on DATA and publish it.

    DATA is a folder with one folder of images a class, or a folder with the MNIST idx files.

    \b
    Examples:
      pigeonhole train photos/ --name birds
      pigeonhole train mnist/ --name digits --arch mlp --epochs 10
      pigeonhole train photos/ --name birds --detach
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    wish = TrainWish(data, name, chosen | {"architecture": architecture}, idempotency_key, need_worker=not detach)
    office = open_or_start_office(check=lambda settings: check_train(settings, wish))
    submission = office.submit_train(wish)
    if submission.existed:
        say(f"the same idempotency key stands for job {submission.job} already; nothing new was submitted")
    if detach:
        print_json({"job": submission.job}) if as_json else click.echo(submission.job)
        return
    _follow(office, submission.job, as_json=as_json)


def _follow(office: Office, job: str, *, as_json: bool) -> None:
    """Show the training until it ends, then the model."""
    from orchestrator.cli.progress import end_code, follow_to_end, say_end
    from orchestrator.follow import to_json

    record = follow_to_end(office, job)
    say_end(record)
    metrics = ModelStore(office.settings.models).card(record.result).metrics if record.result else {}
    if as_json:
        print_json(to_json(office.settings, record) | {"metrics": metrics})
    elif record.result:
        accuracy = metrics.get("test_accuracy")
        shown = f" (test accuracy {accuracy:.4f})" if accuracy is not None else ""
        say(f"published {record.result}{shown}; use it with `pigeonhole classify SOURCE --model {record.result}`")
        click.echo(record.result)
    sys.exit(end_code(record))
