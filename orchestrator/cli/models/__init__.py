"""`pigeonhole models ...`."""

import click

from orchestrator.cli.lazy import Entry, LazyGroup

COMMANDS = {
    "list": Entry("models.published:list_models", "List every version of every model."),
    "show": Entry("models.published:show_model", "Show what a model is and how it was made."),
    "evaluate": Entry("models.evaluate:evaluate_model", "Measure a model on labelled images."),
    "explain": Entry("models.explain:explain_model", "Draw what a model has learned, and how it responds to images."),
    "alias": Entry("models.lifecycle:alias_model", "Give a version a movable name, such as champion."),
    "remove": Entry("models.lifecycle:remove_model", "Remove a version permanently."),
    "compare": Entry("models.compare:compare_command", "Compare two models on the same labelled images."),
    "summary": Entry("models.summary:summarise_model", "Show layers, shapes, parameters and cost of a network."),
    "bench": Entry("models.bench:bench_model", "Measure how fast a model answers on this machine."),
    "architectures": Entry("models.summary:list_architectures", "List the networks that can be trained."),
    "export": Entry("models.exchange:export_model", "Write a model for use elsewhere: ONNX or a plain folder."),
    "import": Entry("models.exchange:import_model", "Publish weights from elsewhere, or an exported folder."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def models() -> None:
    """Published models."""
