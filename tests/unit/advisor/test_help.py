"""`--help` of every command: an example, words for each option, and what its value is."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
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


@pytest.mark.parametrize(("path", "command"), [*every_command(cli, "gpu-advisor")], ids=str)
def test_help_fits_a_terminal_of_80_columns(path: str, command: click.Command) -> None:
    context = click.Context(command, info_name=path, terminal_width=80)
    assert [line for line in command.get_help(context).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["serve"], "`gpu-advisor init` writes a settings file"),
        (["snooze"], "`gpu-advisor recommend` lists the IDs"),
        (["snooze", "abc"], "--reason is missing"),
        (["recomend"], "Did you mean 'recommend'?"),
        (["recommend", "--severity", "urgent"], "'info', 'warning', 'critical'"),
        (["recommend", "--advisor", "http://127.0.0.1:1"], "(Connection refused): start one with `gpu-advisor up`"),
        (["recommend", "--advisor", "localhost"], "is not a URL such as http://127.0.0.1:9817"),
        (["recommend", "--prometheus", "localhost:9090"], "is not a URL such as http://127.0.0.1:9090"),
        (["report", "--since", "1y"], "is not a duration such as 90m, 24h, 7d or 4w"),
        (["plan", "--params", "7b", "--gpus", "A100"], "write A100-40GB or A100-80GB"),
        (["runbook", "nothing"], "`gpu-advisor runbook` lists them"),
    ],
)
def test_an_error_says_how_to_fix_it(arguments: list[str], fix: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in (1, 2)
    assert fix in " ".join(result.output.split())
