"""The error of the one-shot commands."""

from __future__ import annotations

import click


class CommandError(click.ClickException):
    """The command failed. The message says how to fix it; the exit code is 1."""
