"""The command line: a flag for each setting, a switch for each collector."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import Field
from typing import Any, NoReturn

from gpu_exporter import __version__
from gpu_exporter.config.errors import SettingsError, suggestion


class _FlagParser(argparse.ArgumentParser):
    """Raises SettingsError for wrong arguments: the usage of sixty flags would hide the message."""

    def error(self, message: str) -> NoReturn:
        """Raise SettingsError for a message such as `argument --a/--no-a: ignored explicit argument 'x'`."""
        found = re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL)
        if not found:
            raise SettingsError(f"{message}; see gpu-exporter --help")
        flags, problem = found[1].split("/"), found[2]
        if problem.startswith("ignored explicit argument"):
            problem = f"takes no value: write {' or '.join(flags)}"
        elif problem.startswith("expected one argument"):
            problem = f"needs a value: write {flags[0]}=VALUE; see gpu-exporter --help"
        raise SettingsError(f"{flags[0]}: {problem}")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer") from None


def parse_flags(argv: Sequence[str], settings: Sequence[Field[Any]], collectors: Sequence[str]) -> dict[str, Any]:
    """The flags by key, None if absent. Raises SettingsError; --help and --version exit."""
    options, unknown = _build_parser(settings, collectors).parse_known_args(argv)
    if not unknown:
        return vars(options)
    flag = unknown[0].partition("=")[0]
    if not flag.startswith("-"):
        raise SettingsError(f"unexpected argument {flag!r}: all settings are flags, such as --log.level=info")
    keys = [*(f.metadata["key"] for f in settings), *(f"collector.{name}" for name in collectors)]
    known = [*(f"--{key}" for key in keys), *(f"--no-collector.{name}" for name in collectors)]
    raise SettingsError(f"{flag}: unknown flag; {suggestion(flag, known)}")


def _build_parser(settings: Sequence[Field[Any]], collectors: Sequence[str]) -> argparse.ArgumentParser:
    parser = _FlagParser(
        prog="gpu-exporter",
        usage="%(prog)s [--FLAG VALUE ...] [--no-collector.NAME ...]",
        description="Exports GPU, CPU, memory, disk and network metrics of this machine to Prometheus.",
        epilog="To try it without a GPU: gpu-exporter --simulate 8xH100-80GB:training",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpu-exporter {__version__}")
    parser.add_argument(
        "--config.file", dest="config_file", metavar="FILE", help="YAML file; its keys are the names of the flags"
    )
    for f in settings:
        key = f.metadata["key"]
        if isinstance(f.default, bool):
            parser.add_argument(
                f"--{key}", dest=key, action=argparse.BooleanOptionalAction, default=None, help=f.metadata["help"]
            )
            continue
        default_text = f.metadata["default_text"] or str(f.default).replace("%", "%%") or "none"
        parser.add_argument(
            f"--{key}",
            dest=key,
            type=_integer if isinstance(f.default, int) else str,
            default=None,
            metavar=f.metadata["metavar"],
            help=f"{f.metadata['help']} (default: {default_text})",
        )
    switches = parser.add_argument_group(
        "collectors",
        "All are enabled; --no-collector.NAME disables one, --collector.NAME enables one that the file disables. NAME "
        f"is one of {', '.join(collectors)}. host stands for all of the machine's, arp and those after it.",
    )
    for name in collectors:
        switches.add_argument(
            f"--collector.{name}",
            dest=f"collector.{name}",
            action=argparse.BooleanOptionalAction,  # adds --no-collector.NAME, as node_exporter spells it
            default=None,
            help=argparse.SUPPRESS,
        )
    return parser
