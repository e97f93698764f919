"""`pigeonhole train`."""

from pathlib import Path

import click

from modeling.networks.quality import QUALITIES, Quality
from orchestrator.cli.client import submit_and_follow
from orchestrator.cli.output import json_option
from orchestrator.cli.parameters import (
    Duration,
    LearningRate,
    Share,
    architecture_type,
    layout_option,
    notify_option,
    priority_option,
    weights_key_option,
)
from orchestrator.contract.ledger.words import Priority


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name to publish the model under; every run adds a version.")
@click.option(
    "--arch",
    "architecture",
    type=architecture_type,
    help="Network architecture, such as cnn, resnet18 or mobilenet_v2; default: chosen for the images and the weights "
    "at hand (`pigeonhole weights list`), or that of --from-weights.",
)
@click.option(
    "--from-weights",
    "weights",
    metavar="W",
    help="Pre-trained weights: a name of `pigeonhole weights list`, a file, a published model, or imagenet or another "
    "name of torchvision's, which are downloaded.",
)
@click.option(
    "--quality",
    type=click.Choice(QUALITIES),
    help="How much time a network that is chosen by itself may take; default: good. best: twice the epochs, or "
    "fine-tuning. Processor minutes on 2 cores with fast, good and best: 10,000 letters of 28 px 0.3, 0.6 and 1.1; "
    "31,000 characters 0.9, 1.5 and 3.0; 1,400 photographs with weights at hand 0.5, 0.5 and 3.1, without them 31 "
    "(good). Minutes with both cores: MNIST 1.2 (fast) and 2.4 (good), CIFAR-10 2.9 and 20.",
)
@weights_key_option
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the training images; default: the recipe's. With --from-weights: epochs of fine-tuning.",
)
@click.option(
    "--budget",
    "budget_s",
    type=Duration(),
    help="Time limit of fitting, kept by training fewer epochs. With --from-weights it enables fine-tuning.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per training step; default: the recipe's.")
@click.option("--learning-rate", type=LearningRate(), help="Highest learning rate, or auto; default: the recipe's.")
@click.option("--image-size", type=click.IntRange(min=8), help="Side of the network's square input, in pixels.")
@click.option(
    "--max-error",
    type=Share(),
    default=0.01,
    show_default="1%",
    help="Share of accepted images that may be wrong, on average over models; the other images go to review.",
)
@click.option(
    "--validation", type=float, default=0.1, show_default=True, help="Share of images that choose the best epoch."
)
@click.option("--test", type=float, default=0.1, show_default=True, help="Share of images kept for the final accuracy.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed; on a CPU, the same seed gives the same network.",
)
@click.option("--deterministic", is_flag=True, help="Make no choice by timing, and use only deterministic kernels.")
@click.option(
    "--int8", is_flag=True, help="Also quantise the network to int8; published if its answers agree with the network's."
)
@layout_option
@click.option("--idempotency-key", help="Submit only once, however often the command is repeated with the same key.")
@priority_option
@notify_option
@click.option("--detach", is_flag=True, help="Print the job's id and return immediately.")
@json_option
def train(
    data: tuple[Path, ...],
    name: str,
    quality: Quality | None,
    idempotency_key: str | None,
    priority: Priority,
    notify: str | None,
    detach: bool,
    as_json: bool,
    **options: object,
) -> None:
    """Train a classifier on DATA and publish it. Several DATA count together.

    DATA is a folder with one folder of images for each class (or train, val and test folders of such), MNIST-like idx
    files, CIFAR-10's binary files, a CSV, TSV, JSONL or JSON file of path and label, or a manifest with corrected
    labels, which replace the labels that other DATA give the same images.

    Without --arch and --from-weights, a network is chosen: a small one where images have up to 64 pixels a side, else
    one that starts from the pre-trained weights at hand, else a larger one from scratch. What was chosen, and why, is
    printed and kept in the model's card.

    \b
    Examples:
      pigeonhole train photos/ --name birds
      pigeonhole train photos/ more_photos/ corrected.csv --name birds
      pigeonhole train mnist/ --name digits --arch mlp --epochs 10
      pigeonhole train photos/ --name birds --quality best
      pigeonhole train photos/ --name birds --arch mobilenet_v2 --from-weights imagenet
      pigeonhole train photos/ --name birds --arch resnet18 --from-weights imagenet --budget 10m --max-error 0.5%
      pigeonhole train corrected.csv --name birds --from-weights birds@2 --detach
    """
    from orchestrator.cli.trained import show_trained
    from orchestrator.cli.weights import print_reading
    from orchestrator.jobs.specs import TrainSpec

    chosen = {key: value for key, value in options.items() if value is not None}
    first, *joined = data
    spec = TrainSpec(
        first,
        name,
        chosen,
        idempotency_key,
        notify,
        need_worker=not detach,
        joined=tuple(joined),
        quality=quality,
        on_read=print_reading,
        priority=priority,
    )
    submit_and_follow(spec, show_trained, detach=detach, as_json=as_json)
