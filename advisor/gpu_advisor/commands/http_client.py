"""HTTP client of a running advisor."""

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
    connection_problem,
)
from gpu_advisor.storage.secret_file import Secret, SecretFile, reveal

DEFAULT_ADVISOR = "http://127.0.0.1:9817"
RESPONSE_TIMEOUT_SECONDS = 30.0
MAX_RESPONSE_BYTES = 256 * 2**20

_NOT_A_URL = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)


def read_token(file: Path | None) -> Secret:
    """The bearer token in a file; empty without a file. Raises CommandError."""
    try:
        return SecretFile(file) if file else ""
    except (OSError, ValueError) as error:
        raise CommandError(f"--token-file: {error}; set the path of a readable file") from error


class AdvisorHttpClient:
    """Connection to the advisor at `address` (normalized to end with a slash)."""

    def __init__(self, address: str, token: Secret, ca_file: str | None) -> None:
        self.address = address.rstrip("/") + "/"
        self._token = token
        self._client = DeadlineClient(ca_file)

    def fetch(
        self,
        method: str,
        url: str,
        *,
        unreachable_hint: str = "",
        seconds: float = RESPONSE_TIMEOUT_SECONDS,
        **arguments: Any,
    ) -> tuple[HttpResponse, Any]:
        """The response and its parsed JSON body (None if empty). `unreachable_hint` is appended to that error.

        Raises CommandError if the advisor is unreachable, the body is not JSON, or authentication is required.
        """
        headers = {"Authorization": f"Bearer {reveal(self._token)}"} if self._token else {}
        try:
            answer = self._client.fetch(
                method, url, seconds=seconds, max_bytes=MAX_RESPONSE_BYTES, headers=headers, **arguments
            )
            found = json.loads(answer.body) if answer.body else None
        except requests.exceptions.SSLError as error:
            raise CommandError(f"{url}: TLS error ({error}): pass the CA's certificate with --ca-file") from error
        except _NOT_A_URL as error:
            raise CommandError(
                f"{self.address.rstrip('/')!r} is not a URL such as {DEFAULT_ADVISOR}: correct --advisor"
            ) from error
        except (DeadlineExceededError, BodyTooLargeError) as error:
            raise CommandError(
                f"{self.address}: {error}: check that it is an advisor, or pass another with --advisor "
                f"URL{unreachable_hint}"
            ) from error
        except (requests.RequestException, OSError) as error:
            raise CommandError(
                f"no advisor at {self.address} ({connection_problem(error)}): start one with `gpu-advisor up`, pass "
                f"another with --advisor URL{unreachable_hint}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{url} did not return JSON: check that the URL is an advisor's") from error
        if answer.status == requests.codes.unauthorized:
            raise CommandError(f"{self.address} requires authentication: pass --token-file")
        return answer, found
