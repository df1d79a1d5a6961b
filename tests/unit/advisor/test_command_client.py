"""What a command says where no advisor answers."""

from __future__ import annotations

import socket

import pytest
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
