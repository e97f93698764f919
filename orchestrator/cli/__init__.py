"""The `pigeonhole` command. Only click is imported until a command runs, so that help is instant."""

import click

from orchestrator.cli.lazy import Entry, LazyGroup

COMMANDS = {
    "demo": Entry("demo:demo", "A whole run in about a minute: no GPU, server or data needed."),
    "scan": Entry("scan:scan", "Look through training data: what loads, what is doubled, what is missing."),
    "train": Entry("train:train", "Train a classifier on labelled images, from scratch or from weights."),
    "classify": Entry("classify:classify", "Classify the images of a folder, glob or list into a manifest."),
    "jobs": Entry("jobs:jobs", "List jobs, newest first."),
    "status": Entry("jobs:status", "Show how far a job is."),
    "watch": Entry("jobs:watch", "Follow a job until it ends."),
    "wait": Entry("jobs:wait", "Wait in silence until jobs end."),
    "cancel": Entry("jobs:cancel", "End a job early."),
    "results": Entry("results:results", "Show, check and filter manifests."),
    "models": Entry("models:models", "Published models: list, show, evaluate, explain, export, ..."),
    "worker": Entry("worker:worker", "Start a worker on one device of this machine."),
    "workers": Entry("worker:workers", "List the workers that are alive."),
    "up": Entry("stack:up", "Start the local stack: a server and a worker a device."),
    "down": Entry("stack:down", "Stop the local stack."),
    "doctor": Entry("doctor:doctor", "Say what works, what does not, and what mends it."),
    "completion": Entry("completion:completion", "Print the shell's completion script."),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pigeonhole", prog_name="pigeonhole")
def main() -> None:
    """Pigeonhole, a sorting office for images.

    Train image classifiers and classify folders of any size, on this machine or on many.

    \b
      pigeonhole demo                                       see it work
      pigeonhole train photos/ --name birds                 a folder per class
      pigeonhole classify inbox/ --model birds -o out.csv   one row per image
    """
