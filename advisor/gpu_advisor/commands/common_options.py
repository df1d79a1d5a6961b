"""Options that several commands have."""

from __future__ import annotations

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


def refresh_interval(default: float, shortest: float) -> Callable[[F], F]:
    """--interval in seconds, as the parameter `interval`."""
    return click.option(
        "--interval", type=click.FloatRange(min=shortest), default=default, show_default=True, metavar="SECONDS",
        help="Refresh interval in seconds.",
    )  # fmt: skip
