"""The subcommands of `gpu-advisor`: one file each, one line here. What is heavy is imported when the command runs."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem


class CommandInfo(NamedTuple):
    """A command: the module here that has it as `command`, and its first line of help."""

    module: str
    about: str


#: In the order of `--help`, which tells of all of them without importing any: all together take seconds.
COMMANDS: dict[str, CommandInfo] = {
    "up": CommandInfo("up", "Run exporter and advisor on this machine, with nothing else needed."),
    "serve": CommandInfo("serve", "Run the advisor beside a Prometheus that is already there."),
    "rules": CommandInfo(
        "rules",
        "Print the recording rules of the series that dashboards and long windows read, for a rule file of Prometheus.",
    ),
    "backtest": CommandInfo("backtest", "Replay demand through the advisor's own policy and through others."),
    "check": CommandInfo(
        "check", "The checklist of fleet, pools and nodes: met, missed (by how much) or unknown (why)."
    ),
    "recommend": CommandInfo("recommend", "What to do now."),
    "watch": CommandInfo("watch", "The checklist and what to do, renewed as they change."),
    "top": CommandInfo("top", "One node as its exporter sees it: its GPUs, who uses them, and the host."),
    "autoscale": CommandInfo("autoscale", "How many replicas each serving pool should have now."),
    "optimize": CommandInfo("optimize", "Check and diagnose against these targets, and say what to change."),
    "report": CommandInfo(
        "report", "Use, cost and waste of the last days, what is recommended, and what became of advice."
    ),
    "batch-size": CommandInfo("batch_size", "Which batch size fits, from a few measured ones."),
    "probe": CommandInfo("probe", "Measure memory and throughput at several batch sizes."),
    "estimate": CommandInfo("estimate", "Peak training memory without a GPU."),
    "plan": CommandInfo("plan", "Whether a training job fits, and how to split it."),
    "cost": CommandInfo("cost", "Where a job costs least, by cost of its work."),
    "allocate": CommandInfo(
        "allocate", "Lease GPUs, the best-fitting ones, until they are released or the lease runs out."
    ),
    "completion": CommandInfo("completion", "Print the script that completes commands and options in a shell."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called or described, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=listed.about) for name, listed in COMMANDS.items() if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.about) for name, listed in COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        listed = COMMANDS.get(cmd_name)
        command = import_module(f"{__name__}.{listed.module}").command if listed else None
        return command if isinstance(command, click.Command) else None
