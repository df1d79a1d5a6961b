"""The subcommands of `gpu-advisor`: one file each, one line here. What is heavy is imported when the command runs."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

#: Command -> the module that has it as `command`, in the order of `--help`.
COMMANDS: dict[str, str] = {
    "up": "gpu_advisor.commands.up",
    "serve": "gpu_advisor.commands.serve",
    "rules": "gpu_advisor.commands.rules",
    "backtest": "gpu_advisor.commands.backtest",
    "check": "gpu_advisor.commands.check",
    "recommend": "gpu_advisor.commands.recommend",
    "watch": "gpu_advisor.commands.watch",
    "top": "gpu_advisor.commands.top",
    "autoscale": "gpu_advisor.commands.autoscale",
    "optimize": "gpu_advisor.commands.optimize",
    "report": "gpu_advisor.commands.report",
    "batch-size": "gpu_advisor.commands.batch_size",
    "probe": "gpu_advisor.commands.probe",
    "estimate": "gpu_advisor.commands.estimate",
    "plan": "gpu_advisor.commands.plan",
    "cost": "gpu_advisor.commands.cost",
    "allocate": "gpu_advisor.commands.allocate",
    "completion": "gpu_advisor.commands.completion",
}


class Commands(click.Group):
    """A group that imports a command when it is called or described, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by their names alone: their first lines of help would cost an import each, and a second."""
        found = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        command = import_module(module).command if module else None
        return command if isinstance(command, click.Command) else None
