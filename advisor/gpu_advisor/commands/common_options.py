"""Options that several commands have."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gpu_advisor.calibration.precision import PRECISIONS

F = TypeVar("F", bound=Callable[..., Any])

ca_file = click.option("--ca-file", type=click.Path(dir_okay=False), help="Trust this certificate (PEM).")
token_file = click.option(
    "--token-file", type=click.Path(dir_okay=False, path_type=Path), help="Bearer token for --advisor."
)
precision = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="Precision of the model."
)


def output_format(*formats: str, name: str = "format_", description: str = "Output format.") -> Callable[[F], F]:
    """--format, as the parameter `name`. The first of `formats` is the default."""
    return click.option(
        "--format", name, type=click.Choice(formats), default=formats[0], show_default=True, help=description
    )


_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    """Seconds of `90m`, `12h`, `7d` or `4w`: the callback of an option."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text, re.ASCII)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{text!r} is not a duration such as 90m, 24h, 7d or 4w")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def refresh_interval(default: float, shortest: float) -> Callable[[F], F]:
    """--interval in seconds, as the parameter `interval`."""
    return click.option(
        "--interval", type=click.FloatRange(min=shortest), default=default, show_default=True, metavar="SECONDS",
        help="Refresh interval in seconds.",
    )  # fmt: skip
