"""The command `gpu-advisor`. Exit codes: 0 success, 1 failure, 2 usage or configuration error."""

from __future__ import annotations

import os
import sys

import click

from gpu_advisor import __version__
from gpu_advisor.commands import LazyGroup

USAGE_ERROR = 2


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gpu-advisor")
def cli() -> None:
    """Checks GPU nodes against targets, diagnoses why targets are missed and recommends what to change.

    \b
    Try it without a GPU or Prometheus:
      gpu-advisor up --simulate 8xH100-80GB:idle-hoarder

    Environment variables set options too: GPU_ADVISOR_WATCH_INTERVAL=5 is `watch --interval 5`.
    """


def main() -> int:
    """The console command. Errors that a user can fix are one line, not a traceback."""
    try:
        code = cli.main(prog_name="gpu-advisor", standalone_mode=False)
    except click.exceptions.Abort:
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # `gpu-advisor check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at the end would fail as well
        return 0
    except Exception as error:
        exit_code = _report_error(error)
        if exit_code is None:
            raise
        return exit_code
    return code if isinstance(code, int) else 0


def _report_error(error: Exception) -> int | None:
    """Print an error that a user can fix, and return the exit code; None for other errors.

    Imports late: shell completion must not wait for these modules.
    """
    from gpu_advisor.runtime.wiring import StartupError
    from gpu_advisor.settings import ConfigError
    from gpu_advisor.settings.addresses import AddressError

    if not isinstance(error, (ConfigError, StartupError, AddressError)):
        return None
    click.echo(f"gpu-advisor: {error}", err=True)
    return USAGE_ERROR if isinstance(error, ConfigError) else 1
