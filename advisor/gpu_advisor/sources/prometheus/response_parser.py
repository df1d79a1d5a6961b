"""Parse responses of the Prometheus HTTP API, with a specific error for each kind of failure. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from gpu_advisor.promql.expressions import Labels, TimeSeries
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.http_client import HttpResponse

#: Prometheus 2.48 to 2.53 sends what it notices about a query's style among the warnings, later ones as `infos`.
_INFO_PREFIX = "PromQL info:"

_MAX_MESSAGE_CHARACTERS = 300  # of a server's own message

T = TypeVar("T")


def response_data(response: HttpResponse, server: str) -> Any:
    """The `data` of a complete, successful response. `server` names the server in messages. Raises SourceError."""
    if response.status in (401, 403, 407):
        _raise_unauthorized(response, server)
    if 300 <= response.status < 400:
        _raise_redirect(response, server)
    document = _document(response)
    if isinstance(document, dict) and document.get("status") == "error":
        _raise_error(document, server)
    if response.status != 200:
        _raise_status(response, server)
    if document is None:
        _raise_not_json(response, server)
    if not isinstance(document, dict) or document.get("status") != "success" or "data" not in document:
        raise bad_response_error(server, "the JSON has no 'status: success' with 'data'")
    _raise_if_partial(document, server)
    return document["data"]


def parse_vector(data: Any, server: str) -> dict[Labels, float]:
    """An instant vector, with NaN and infinities. Raises SourceError(BAD_RESPONSE) for any other shape."""
    return parse_results(data, "vector", lambda item: float(item["value"][1]), server)


def parse_matrix(data: Any, server: str) -> dict[Labels, TimeSeries]:
    """A matrix without non-finite values and without empty series. Raises SourceError."""

    def series(item: Mapping[str, Any]) -> TimeSeries | None:
        points = ((float(time), float(value)) for time, value in item["values"])
        return tuple(point for point in points if math.isfinite(point[1])) or None

    return parse_results(data, "matrix", series, server)


def parse_results(data: Any, kind: str, read: Callable[[Mapping[str, Any]], T | None], server: str) -> dict[Labels, T]:
    """Each result of type `kind` that `read` does not map to None. Raises SourceError(BAD_RESPONSE)."""
    found: dict[Labels, T] = {}
    try:
        if data["resultType"] != kind:
            raise bad_response_error(server, f"expected a {kind}, got a {str(data['resultType'])[:40]}")
        for item in data["result"]:
            labels = parse_labels(item["metric"])
            if labels in found:
                raise bad_response_error(server, "two results have the same labels")
            result = read(item)
            if result is not None:
                found[labels] = result
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise bad_response_error(server, f"the results do not have the shape of a {kind}") from error
    return found


def parse_labels(metric: Mapping[str, Any]) -> Labels:
    """The labels of a result. Raises TypeError, AttributeError for another shape."""
    pairs = sorted(metric.items())  # sorted already in Prometheus' responses, so cheap
    plain = True
    for name, value in pairs:
        if not isinstance(value, str):
            raise TypeError("label values must be text")
        plain = plain and value != "" and name != "__name__"
    return tuple(pairs) if plain else tuple(pair for pair in pairs if pair[1] and pair[0] != "__name__")


def bad_response_error(server: str, what: str) -> SourceError:
    return SourceError(
        SourceErrorKind.BAD_RESPONSE,
        f"{server}: {what}. Is url the base URL of a Prometheus-compatible API (without /api/v1/query)?",
    )


def _document(response: HttpResponse) -> Any:
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or too deeply nested
        return None


def _raise_if_partial(document: Mapping[str, Any], server: str) -> None:
    # `infos` comment on the query's style; warnings and VictoriaMetrics' isPartial mean that data is missing.
    warnings = document.get("warnings") or []
    if not isinstance(warnings, list):
        warnings = [warnings]
    missing = [str(warning) for warning in warnings if not str(warning).startswith(_INFO_PREFIX)]
    if missing:
        message = "; ".join(missing)
    elif document.get("isPartial") is True:
        message = "isPartial: true"
    else:
        return
    raise SourceError(
        SourceErrorKind.PARTIAL,
        f"{server} returned a partial result: {_truncate(message)}. Missing data would look like absent series, so "
        "it is not used; restore the store or storage node that it names.",
    )


def _raise_error(document: Mapping[str, Any], server: str) -> NoReturn:
    kind, message = str(document.get("errorType", "")), _truncate(str(document.get("error", "")))
    if kind in ("timeout", "canceled"):
        raise SourceError(
            SourceErrorKind.TIMEOUT,
            f"{server} aborted a query ({kind}: {message}). Raise --query.timeout there, or query less often.",
        )
    if kind in ("unavailable", "internal"):
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} is unavailable ({kind}: {message}). Check that server's log.",
        )
    raise SourceError(
        SourceErrorKind.QUERY_ERROR,
        f"{server} rejected a query ({kind}: {message}). Fix the PromQL in the settings or in the mapping "
        "it comes from.",
    )


def _raise_unauthorized(response: HttpResponse, server: str) -> NoReturn:
    fix = {
        401: "Set bearer_token, or username and password",
        403: "These credentials may not query: grant them read access, or set the tenant header that it requires",
        407: "Set the proxy's credentials in HTTPS_PROXY, or add the host to NO_PROXY",
    }[response.status]
    raise SourceError(SourceErrorKind.UNAUTHORIZED, f"{server} returned {response.status}. {fix}.")


def _raise_redirect(response: HttpResponse, server: str) -> NoReturn:
    target = urlsplit(response.headers.get("Location", ""))
    place = f"{target.scheme}://{target.hostname}" if target.hostname else "another page"  # no tokens from its query
    raise bad_response_error(server, f"it redirects ({response.status}) to {place}: a login page, or a moved address")


def _raise_status(response: HttpResponse, server: str) -> NoReturn:
    if response.status == 429:
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} returned 429 Too Many Requests. Query less often, or raise the tenant's limit there.",
        )
    if response.status in (502, 503, 504):
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} returned {response.status}: it is starting or overloaded, or a proxy cannot reach it. "
            "Is it running?",
        )
    raise bad_response_error(server, f"it returned {response.status}")


def _raise_not_json(response: HttpResponse, server: str) -> NoReturn:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if "html" in kind or response.body.lstrip()[:1] == b"<":
        raise bad_response_error(server, "it returned a web page instead of JSON, perhaps a proxy's login page")
    raise bad_response_error(server, "the response is not JSON, or truncated")


def _truncate(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[:_MAX_MESSAGE_CHARACTERS] + "..."
