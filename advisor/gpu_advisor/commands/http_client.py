"""An advisor that runs, as the one-shot commands ask it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests

from gpu_advisor.commands.errors import CommandError
from gpu_advisor.sources.prometheus.http_client import (
    BodyTooLargeError,
    DeadlineClient,
    DeadlineExceededError,
    HttpResponse,
)

DEFAULT_ADVISOR = "http://127.0.0.1:9817"
RESPONSE_TIMEOUT_SECONDS = 30.0
MAX_RESPONSE_BYTES = 256 * 2**20


def read_token(file: Path | None) -> str:
    """The bearer token of --token-file; none without a file. Raises CommandError."""
    try:
        return file.read_text(encoding="utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--token-file: {error}; give the path of a readable file") from error


class AdvisorHttpClient:
    """One connection to the advisor at `address`, which ends with a slash."""

    def __init__(self, address: str, token: str, ca_file: str | None) -> None:
        self.address = address.rstrip("/") + "/"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = DeadlineClient()
        self._client.session.verify = ca_file or True

    def fetch(
        self,
        method: str,
        url: str,
        *,
        unreachable_hint: str = "",
        seconds: float = RESPONSE_TIMEOUT_SECONDS,
        **arguments: Any,
    ) -> tuple[HttpResponse, Any]:
        """The answer and what is in it, None for an empty one; `unreachable_hint` is what to do where nobody answers.

        Raises CommandError where nobody does, where it is no JSON, and where a login is asked for.
        """
        try:
            answer = self._client.fetch(
                method, url, seconds=seconds, max_bytes=MAX_RESPONSE_BYTES, headers=self._headers, **arguments
            )
            found = json.loads(answer.body) if answer.body else None
        except requests.exceptions.SSLError as error:
            raise CommandError(f"{url}: TLS fails ({error}): give the certificate with --ca-file") from error
        except (requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError) as error:
            raise CommandError(
                f"no advisor answers at {self.address} ({type(error).__name__}): start one with `gpu-advisor up`, name "
                f"another with --advisor URL{unreachable_hint}"
            ) from error
        except ValueError as error:
            raise CommandError(f"{url} answers, but not as an advisor does: is the address right?") from error
        if answer.status == requests.codes.unauthorized:
            raise CommandError(f"{self.address} asks for a login: give a token with --token-file")
        return answer, found
