"""`gpu-advisor completion`: the shell completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gpu_advisor.commands.errors import CommandError

PROGRAM = "gpu-advisor"

#: Set by the shell to request completions; click derives this name from the program's.
VARIABLE = "_GPU_ADVISOR_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the shell completion script.

    \b
      eval "$(gpu-advisor completion bash)"  in ~/.bashrc (bash 4.4 or newer)
      eval "$(gpu-advisor completion zsh)"   in ~/.zshrc, after compinit
      gpu-advisor completion fish > ~/.config/fish/completions/gpu-advisor.fish
    """
    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise CommandError(f"this version of click does not support {shell}: upgrade click")
    completion = completion_class(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE)
    # Not source(): it starts a shell to check its version, and prints the same.
    click.echo(completion.source_template % completion.source_vars())
