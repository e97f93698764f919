"""`pigeonhole completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes the commands and options of pigeonhole.

    \b
    Examples:
      pigeonhole completion bash >> ~/.bashrc
      pigeonhole completion zsh >> ~/.zshrc
      pigeonhole completion fish > ~/.config/fish/completions/pigeonhole.fish
    """
    from orchestrator.cli import main

    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(main, {}, "pigeonhole", "_PIGEONHOLE_COMPLETE").source())
