"""What the one-shot commands end with."""

from __future__ import annotations

import click


class CommandError(click.ClickException):
    """Nobody answered, or not what was asked. The message tells the mend; the exit code is 1."""
