"""The `pigeonhole` command. Only click is imported until a command runs, so that help is fast."""

import os

import click

from orchestrator.cli.lazy import LazyCommand, RootGroup, config_option

COMMANDS = {
    "demo": LazyCommand("demo.command:demo", "A whole run in about a minute: no GPU, server or data needed."),
    "scan": LazyCommand("scan:scan", "Check training data: unreadable images, duplicates, too few images."),
    "train": LazyCommand("train:train", "Train a classifier on labelled images, from scratch or from weights."),
    "classify": LazyCommand("classify:classify", "Classify the images of a folder, glob or list into a manifest."),
    "predict": LazyCommand("predict:predict", "Classify single images at once, without a job or a server."),
    "read": LazyCommand("read:read", "Read the text of a scanned page with a model of characters."),
    "jobs": LazyCommand("jobs:jobs", "Jobs: list, ...; alone it lists them, newest first."),
    "status": LazyCommand("jobs.follow:status", "Show the state and progress of a job."),
    "watch": LazyCommand("jobs.follow:watch", "Follow a job until it ends."),
    "wait": LazyCommand("jobs.follow:wait", "Wait until jobs end, without output."),
    "cancel": LazyCommand("jobs.follow:cancel", "Cancel a job."),
    "results": LazyCommand("results:results", "Show, check and filter manifests."),
    "models": LazyCommand("models:models", "Published models: list, show, evaluate, explain, export, ..."),
    "weights": LazyCommand(
        "weights:weights", "Pre-trained weights that a training may start from: list, import, remove."
    ),
    "push": LazyCommand("push:push", "Push images to a line, and get the bin of each before its deadline."),
    "lines": LazyCommand("lines:lines", "Lines of pushed images: create, show, stats, bins, answer, ..."),
    "gateway": LazyCommand("gateway:gateway", "Serve lines, jobs and models over HTTP."),
    "hotfolder": LazyCommand(
        "hot_folder:hot_folder", "Answer the images that are put into a folder, and move them on."
    ),
    "telegrams": LazyCommand("telegrams:telegrams", "Answer controllers that speak telegrams over TCP."),
    "worker": LazyCommand("worker:worker", "Start a worker on one device of this machine."),
    "workers": LazyCommand("workers:workers", "Workers: list, drain, healthcheck."),
    "up": LazyCommand("stack:up", "Start the local stack: a server and a worker for each device."),
    "down": LazyCommand("stack:down", "Stop the local stack."),
    "doctor": LazyCommand("doctor:doctor", "Check the installation, and say how to fix what does not work."),
    "completion": LazyCommand("completion:completion", "Print the shell's completion script."),
}


@click.group(
    cls=RootGroup,
    table=COMMANDS,
    params=[config_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pigeonhole", prog_name="pigeonhole")
def main() -> None:
    """Pigeonhole, a sorting office for images.

    Train image classifiers, classify folders of any size, and answer single images before a deadline, on one machine or
    many.

    \b
      pigeonhole demo                                       see it work
      pigeonhole train photos/ --name birds                 a folder per class
      pigeonhole classify inbox/ --model birds -o out.csv   one row per image
      pigeonhole push owl.jpg --line birds                  one bin before the deadline
    """
    os.umask(os.umask(0o077) | 0o002)  # nothing of ours is for everybody to write to
