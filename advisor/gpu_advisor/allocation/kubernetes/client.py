"""A cluster's API server, through the official client (extra: kubernetes): JSON documents in and out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpu_advisor.allocation.kubernetes.errors import (
    ApiUnavailableError,
    ClusterError,
    ResourceExpiredError,
    UnauthorizedError,
    error_from_api,
)
from gpu_advisor.extras import install_hint

TIMEOUT_SECONDS = 30.0
#: Objects per page; a cluster may have tens of thousands of pods.
PAGE_LIMIT = 500
NOT_JSON_MESSAGE = "the response is not a JSON document: check that this is a Kubernetes API server"


@dataclass(frozen=True, slots=True)
class KubernetesClient:
    """`api`: the client's ApiClient. Calls time out after `timeout_seconds`."""

    api: Any
    timeout_seconds: float = TIMEOUT_SECONDS

    def call_json(self, what: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """Call a method and return its response as a document. Raises ClusterError, which names `what` was done."""
        response = self._call(what, method, *arguments, **options)
        try:
            document = json.loads(response.data)
        except (ValueError, AttributeError) as error:
            raise ApiUnavailableError(f"{what}: {NOT_JSON_MESSAGE}") from error
        if not isinstance(document, dict):
            raise ApiUnavailableError(f"{what}: {NOT_JSON_MESSAGE}")
        return document

    def list_all(self, what: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        """All pages. Restarts once if the continue token of a long list expires."""
        try:
            return list(self._pages(what, method, arguments, options))
        except ResourceExpiredError:
            return list(self._pages(what, method, arguments, options))

    def watch(
        self, what: str, method: Callable[..., Any], *arguments: Any, seconds: float, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield events for at most `seconds`. Raises ResourceExpiredError if the resource version is too old."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        answer = self._call(
            what, method, *arguments, watch=True, timeout_seconds=max(1, int(seconds)), read_seconds=seconds, **options
        )
        try:
            for line in _lines(answer):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    code = event["object"].get("code")
                    message = f"{what}: {code} {event['object'].get('message', '')}"
                    raise ResourceExpiredError(message) if code == 410 else ApiUnavailableError(f"{message}: try again")
                yield event
        except ReadTimeoutError:
            return  # no further event
        except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            raise ApiUnavailableError(f"{what}: connection lost ({error}): try again") from error
        finally:
            answer.close()

    def _pages(self, what: str, method: Callable[..., Any], arguments: Any, options: Any) -> Iterator[dict[str, Any]]:
        continue_token = ""
        while True:
            page = self.call_json(what, method, *arguments, limit=PAGE_LIMIT, _continue=continue_token, **options)
            yield from page.get("items") or ()
            continue_token = (page.get("metadata") or {}).get("continue") or ""
            if not continue_token:
                return

    def _call(
        self, what: str, method: Callable[..., Any], *arguments: Any, read_seconds: float = 0.0, **options: Any
    ) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if not options.get("_continue"):
            options.pop("_continue", None)
        limits = (self.timeout_seconds, read_seconds or self.timeout_seconds)
        try:
            return method(*arguments, _preload_content=False, _request_timeout=limits, **options)
        except ApiException as error:
            raise error_from_api(error, what) from error
        except (HTTPError, OSError) as error:
            raise ApiUnavailableError(
                f"{what}: the API server does not respond ({error}): check KUBECONFIG, the context and the network"
            ) from error


def connect_cluster(context: str | None = None) -> KubernetesClient:
    """Connect with a kubeconfig context, or with the service account in a pod. Raises ClusterError."""
    try:
        from kubernetes import client
        from kubernetes import config as kubernetes_config
    except ImportError as error:
        raise ClusterError(f"the Kubernetes client is not installed: {install_hint('kubernetes')}") from error
    config: Any = kubernetes_config  # its functions have no types
    file = os.environ.get("KUBECONFIG", "")
    settings: Any = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not file and not context:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(
                config_file=file or "~/.kube/config", context=context, client_configuration=settings
            )
    except (config.ConfigException, OSError, TypeError) as error:
        raise UnauthorizedError(
            f"no usable Kubernetes configuration ({error}): check KUBECONFIG and the context"
        ) from error
    return KubernetesClient(client.ApiClient(settings))


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.stream(amt=None, decode_content=False):
        rest += chunk
        *whole, rest = rest.split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest
