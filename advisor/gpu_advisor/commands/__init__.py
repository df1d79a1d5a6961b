"""The subcommands of `gpu-advisor`: one module each, one line here. Modules are imported when their command runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

#: Prefix of the environment variables that set options: GPU_ADVISOR_WATCH_INTERVAL is `watch --interval`.
ENVIRONMENT_PREFIX = "GPU_ADVISOR"


class CommandInfo(NamedTuple):
    """The module with the click command `command`, and the first line of its help."""

    module: str
    about: str


#: In the order of `--help`, which lists them without importing the modules: that would take seconds.
COMMAND_GROUPS: Mapping[str, Mapping[str, CommandInfo]] = {
    "Start": {
        "up": CommandInfo("up", "Run exporter and advisor on this machine; needs nothing else."),
        "init": CommandInfo("init", "Write a settings file for the exporters and GPUs found."),
        "serve": CommandInfo("serve", "Run the advisor with an existing Prometheus."),
        "check-config": CommandInfo("check_config", "Check a settings file."),
        "doctor": CommandInfo("doctor", "Check driver, exporter, Prometheus and Alertmanager, with a fix for each."),
    },
    "Watch": {
        "top": CommandInfo("top", "Show one node's GPUs, their owners and the host, from its exporter."),
        "watch": CommandInfo("watch", "Watch checklist and recommendations."),
        "check": CommandInfo(
            "check", "Print the checklist of fleet, pools and nodes: met, missed (by how much) or unknown (why)."
        ),
        "report": CommandInfo(
            "report", "Report utilization, cost and waste of the last days, recommendations and outcomes."
        ),
    },
    "Advice": {
        "recommend": CommandInfo("recommend", "Print the active recommendations."),
        "snooze": CommandInfo("snooze", "Snooze recommendations, or end their snooze."),
        "runbook": CommandInfo("runbook", "Print the runbook of an alert or a recommendation."),
        "optimize": CommandInfo("optimize", "Check and diagnose against these targets, and recommend changes."),
        "autoscale": CommandInfo(
            "autoscale", "Print the desired replicas of each serving pool, or apply them to Kubernetes."
        ),
        "backtest": CommandInfo("backtest", "Replay demand through the advisor's scaling policy and others."),
    },
    "Jobs": {
        "batch-size": CommandInfo("batch_size", "Recommend a batch size from a few measured ones."),
        "probe": CommandInfo("probe", "Measure memory and throughput at several batch sizes."),
        "estimate": CommandInfo("estimate", "Estimate the peak memory of training, without a GPU."),
        "plan": CommandInfo("plan", "Plan the parallel layout of a training job."),
        "cost": CommandInfo("cost", "Find the instance type on which a job costs least."),
        "allocate": CommandInfo("allocate", "Lease GPUs (best fit) until they are released or the lease expires."),
    },
    "Integration": {
        "rules": CommandInfo(
            "rules", "Print Prometheus recording rules for the series that dashboards and long windows read."
        ),
        "mappings": CommandInfo(
            "mappings", "List the mappings of exporters, or show how they interpret saved /metrics output."
        ),
        "completion": CommandInfo("completion", "Print the shell completion script."),
    },
}

COMMANDS: dict[str, CommandInfo] = {
    name: listed for commands in COMMAND_GROUPS.values() for name, listed in commands.items()
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
        for title, commands in COMMAND_GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, listed.about) for name, listed in commands.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        listed = COMMANDS.get(cmd_name)
        command = import_module(f"{__name__}.{listed.module}").command if listed else None
        if not isinstance(command, click.Command):
            return None
        name_variables(command, f"{ENVIRONMENT_PREFIX}_{cmd_name}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Click's own suggestions know only commands that are imported.
        name = args[0] if args else ""
        if name and name not in COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "`gpu-advisor --help` lists them."
            raise click.UsageError(f"No such command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


def name_variables(command: click.Command, prefix: str) -> None:
    """Let an environment variable set each option, named after its long form: with the prefix A, A_MIN_GPUS."""
    for option, name in long_options(command):
        option.envvar = option.envvar or variable_name(prefix, name)
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            name_variables(part, f"{prefix}_{name}")


def variable_name(*parts: str) -> str:
    return "_".join(parts).upper().replace("-", "_")


def long_options(command: click.Command) -> Iterator[tuple[click.Option, str]]:
    """Each option with the first of its long forms, without dashes. Not --help and the like, which do something."""
    for option in command.params:
        name = next((name[2:] for name in option.opts if name.startswith("--")), "")
        if isinstance(option, click.Option) and name and not option.is_eager:
            yield option, name
