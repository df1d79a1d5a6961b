"""What a command says where no advisor answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpu_advisor.cli import cli
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.http_client import AdvisorHttpClient

from tests.servers import free_port


def test_a_server_that_does_not_answer_is_not_called_absent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CommandError) as error:
            AdvisorHttpClient(url, "", None).fetch("GET", f"{url}/recommendations", seconds=0.2)
    assert str(error.value) == (
        f"{url}/: no complete response within 0.2 s: check that it is an advisor, or pass another with --advisor URL"
    )


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    expected = f"no advisor at {url}/ .Connection refused.: start one with `gpu-advisor up`"
    with pytest.raises(CommandError, match=expected):
        AdvisorHttpClient(url, "", None).fetch("GET", f"{url}/recommendations", seconds=5)


def test_what_else_to_do_is_only_what_the_command_can_do() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    snoozing = CliRunner().invoke(cli, ["snooze", "61f0c1", "--reason", "new fans", "--advisor", url])
    assert "no advisor at" in snoozing.output
    assert "--prometheus" not in snoozing.output
    assert "--prometheus" in CliRunner().invoke(cli, ["recommend", "--advisor", url]).output


@pytest.mark.parametrize(
    "command",
    [["init", "--output", "{folder}/a.yml", "--prometheus"], ["recommend", "--prometheus"], ["doctor", "--prometheus"]],
)
def test_errors_have_the_words_of_the_operating_system(command: list[str], tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    shown = CliRunner().invoke(cli, [*(each.format(folder=tmp_path) for each in command), url]).output
    assert "Connection refused" in shown
    assert shown.count(url) == 1
