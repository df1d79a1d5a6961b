"""`--help` of every command: an example, words for each option, and what its value is."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from gpu_advisor.cli import cli

#: click's own words for a value, which do not say what it is.
VAGUE = ("TEXT", "INTEGER", "FLOAT", "RANGE")


def every_command(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("path", "command"), [*every_command(cli, "gpu-advisor")], ids=str)
def test_help_teaches(path: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command))
    assert f"    {path}" in text.replace(f"| {path}", f"    {path}") or f'eval "$({path}' in text, "no example"
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name
            value = "" if option.is_flag else option.make_metavar(click.Context(command))
            assert not any(word in value for word in VAGUE), f"{option.name}: {value}"
