"""`pigeonhole models ...`."""

import click

from orchestrator.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "list": LazyCommand("models.published:list_models", "List every version of every model."),
    "show": LazyCommand("models.published:show_model", "Show what a model is and how it was made."),
    "evaluate": LazyCommand("models.evaluate:evaluate_model", "Measure a model on labelled images."),
    "explain": LazyCommand(
        "models.explain:explain_model", "Draw what a model has learned, and how it responds to images."
    ),
    "alias": LazyCommand("models.lifecycle:alias_model", "Give a version a movable name, such as champion."),
    "remove": LazyCommand("models.lifecycle:remove_model", "Remove a version permanently."),
    "compare": LazyCommand("models.compare:compare_command", "Compare two models on the same labelled images."),
    "summary": LazyCommand("models.summary:summarise_model", "Show layers, shapes, parameters and cost of a network."),
    "bench": LazyCommand("models.bench:bench_model", "Measure how fast a model answers on this machine."),
    "architectures": LazyCommand("models.summary:list_architectures", "List the networks that can be trained."),
    "export": LazyCommand("models.exchange:export_model", "Write a model for use elsewhere: ONNX or a plain folder."),
    "import": LazyCommand("models.exchange:import_model", "Publish weights from elsewhere, or an exported folder."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def models() -> None:
    """Published models."""
