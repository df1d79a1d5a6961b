"""The error of the one-shot commands."""

from __future__ import annotations

import re

import click


class CommandError(click.ClickException):
    """The command failed. The message says how to fix it; the exit code is 1."""


def as_option(detail: str) -> str:
    """An error of the API about a query parameter, about the option instead: `pool='x': ...` -> `--pool 'x': ...`."""
    return re.sub(r"^([a-z_]+)=", lambda name: f"--{name[1].replace('_', '-')} ", detail)
