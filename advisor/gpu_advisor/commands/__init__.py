"""The subcommands of `gpu-advisor`: one module each, one line here. Modules are imported when their command runs."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem


class CommandInfo(NamedTuple):
    """The module with the click command `command`, and the first line of its help."""

    module: str
    about: str


#: In the order of `--help`, which lists them without importing the modules: that would take seconds.
COMMANDS: dict[str, CommandInfo] = {
    "up": CommandInfo("up", "Run exporter and advisor on this machine; needs nothing else."),
    "serve": CommandInfo("serve", "Run the advisor with an existing Prometheus."),
    "rules": CommandInfo(
        "rules",
        "Print Prometheus recording rules for the series that dashboards and long windows read.",
    ),
    "mappings": CommandInfo(
        "mappings", "List the mappings of exporters, or show what they make of a saved metrics page."
    ),
    "backtest": CommandInfo("backtest", "Replay demand through the advisor's scaling policy and others."),
    "check": CommandInfo(
        "check", "Print the checklist of fleet, pools and nodes: met, missed (by how much) or unknown (why)."
    ),
    "recommend": CommandInfo("recommend", "Print the active recommendations."),
    "watch": CommandInfo("watch", "Watch checklist and recommendations."),
    "top": CommandInfo("top", "Show one node's GPUs, their owners and the host, from its exporter."),
    "autoscale": CommandInfo(
        "autoscale", "Print the desired replicas of each serving pool, or apply them to Kubernetes."
    ),
    "optimize": CommandInfo("optimize", "Check and diagnose against these targets, and recommend changes."),
    "report": CommandInfo(
        "report", "Report utilization, cost and waste of the last days, recommendations and outcomes."
    ),
    "batch-size": CommandInfo("batch_size", "Recommend a batch size from a few measured ones."),
    "probe": CommandInfo("probe", "Measure memory and throughput at several batch sizes."),
    "estimate": CommandInfo("estimate", "Estimate the peak memory of training, without a GPU."),
    "plan": CommandInfo("plan", "Plan the parallel layout of a training job."),
    "cost": CommandInfo("cost", "Find the instance type on which a job costs least."),
    "allocate": CommandInfo("allocate", "Lease GPUs (best fit) until they are released or the lease expires."),
    "completion": CommandInfo("completion", "Print the shell completion script."),
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
