"""The subcommands of `gpu-advisor`: one file each, one line here. What is heavy is imported when the command runs."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem


class Listed(NamedTuple):
    """A command: the module here that has it as `command`, and its first line of help."""

    module: str
    about: str


#: In the order of `--help`, which tells of all of them without importing any: all together take seconds.
COMMANDS: dict[str, Listed] = {
    "up": Listed("up", "Run exporter and advisor on this machine, with nothing else needed."),
    "serve": Listed("serve", "Run the advisor beside a Prometheus that is already there."),
    "rules": Listed(
        "rules",
        "Print the recording rules of the series that dashboards and long windows read, for a rule file of Prometheus.",
    ),
    "backtest": Listed("backtest", "Replay demand through the advisor's own policy and through others."),
    "check": Listed("check", "The checklist of fleet, pools and nodes: met, missed (by how much) or unknown (why)."),
    "recommend": Listed("recommend", "What to do now."),
    "watch": Listed("watch", "The checklist and what to do, renewed as they change."),
    "top": Listed("top", "One node as its exporter sees it: its GPUs, who uses them, and the host."),
    "autoscale": Listed("autoscale", "How many replicas each serving pool should have now."),
    "optimize": Listed("optimize", "Check and diagnose against these targets, and say what to change."),
    "report": Listed("report", "Use, cost and waste of the last days, what is recommended, and what became of advice."),
    "batch-size": Listed("batch_size", "Which batch size fits, from a few measured ones."),
    "probe": Listed("probe", "Measure memory and throughput at several batch sizes."),
    "estimate": Listed("estimate", "Peak training memory without a GPU."),
    "plan": Listed("plan", "Whether a training job fits, and how to split it."),
    "cost": Listed("cost", "Where a job costs least, by cost of its work."),
    "allocate": Listed("allocate", "Lease GPUs, the best-fitting ones, until they are released or the lease runs out."),
    "completion": Listed("completion", "Print the script that completes commands and options in a shell."),
}


class Commands(click.Group):
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
