"""What the Prometheus HTTP API answered: pure reading of it, every way to be wrong told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from gpu_advisor.promql.expressions import Labels, TimeSeries
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.http_client import HttpResponse

_MAX_MESSAGE_CHARACTERS = 300  # of a server's own words in a message

T = TypeVar("T")


def response_data(answer: HttpResponse, server: str) -> Any:
    """The `data` of a whole, successful answer. `server` names the server in messages. Raises SourceError."""
    if answer.status in (401, 403, 407):
        _raise_unauthorized(answer, server)
    if 300 <= answer.status < 400:
        _raise_redirect(answer, server)
    document = _document(answer)
    if isinstance(document, dict) and document.get("status") == "error":
        _raise_error(document, server)
    if answer.status != 200:
        _raise_status(answer, server)
    if document is None:
        _raise_not_json(answer, server)
    if not isinstance(document, dict) or document.get("status") != "success" or "data" not in document:
        raise bad_response_error(server, "the JSON has no 'status: success' with 'data'")
    _raise_if_partial(document, server)
    return document["data"]


def parse_vector(data: Any, server: str) -> dict[Labels, float]:
    """An instant vector, with NaN and infinities. Raises SourceError(BAD_RESPONSE) for any other shape."""
    return _results(data, "vector", lambda item: float(item["value"][1]), server)


def parse_matrix(data: Any, server: str) -> dict[Labels, TimeSeries]:
    """A matrix without its non-finite values; series with nothing left are not in it. Raises SourceError."""

    def trail(item: Mapping[str, Any]) -> TimeSeries | None:
        points = ((float(time), float(value)) for time, value in item["values"])
        return tuple(point for point in points if math.isfinite(point[1])) or None

    return _results(data, "matrix", trail, server)


def bad_response_error(server: str, what: str) -> SourceError:
    return SourceError(
        SourceErrorKind.BAD_RESPONSE,
        f"{server}: {what}. Is this the base URL of a Prometheus-compatible query API (what stands before /api/v1/query)?",
    )


def _results(data: Any, kind: str, read: Callable[[Mapping[str, Any]], T | None], server: str) -> dict[Labels, T]:
    found: dict[Labels, T] = {}
    try:
        if data["resultType"] != kind:
            raise bad_response_error(server, f"asked for a {kind} and got a {str(data['resultType'])[:40]}")
        for item in data["result"]:
            labels = _labels(item["metric"])
            if labels in found:
                raise bad_response_error(server, "two results have the same labels")
            result = read(item)
            if result is not None:
                found[labels] = result
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise bad_response_error(server, f"the results do not have the shape of a {kind}") from error
    return found


def _labels(metric: Mapping[str, Any]) -> Labels:
    pairs = sorted(metric.items())  # as Prometheus gives them already, which makes it cheap
    plain = True
    for name, value in pairs:
        if not isinstance(value, str):
            raise TypeError("label values must be text")
        plain = plain and value != "" and name != "__name__"
    return tuple(pairs) if plain else tuple(pair for pair in pairs if pair[1] and pair[0] != "__name__")


def _document(answer: HttpResponse) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
        return None


def _raise_if_partial(document: Mapping[str, Any], server: str) -> None:
    # `infos` are remarks on the query's style; warnings and VictoriaMetrics' isPartial say that something is missing.
    warnings = document.get("warnings")
    if warnings:
        message = "; ".join(str(warning) for warning in warnings) if isinstance(warnings, Sequence) else str(warnings)
    elif document.get("isPartial") is True:
        message = "isPartial: true"
    else:
        return
    raise SourceError(
        SourceErrorKind.PARTIAL,
        f"{server} answered only in part: {_truncate(message)}. What is missing cannot be told from what is not there, so the"
        " answer is not used; bring back the store or storage node that it names.",
    )


def _raise_error(document: Mapping[str, Any], server: str) -> NoReturn:
    kind, message = str(document.get("errorType", "")), _truncate(str(document.get("error", "")))
    if kind in ("timeout", "canceled"):
        raise SourceError(
            SourceErrorKind.TIMEOUT,
            f"{server} gave a query up ({kind}: {message}). Give it more time (--query.timeout), or ask it less often.",
        )
    if kind in ("unavailable", "internal"):
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} cannot answer now ({kind}: {message}). Look at that server's own log.",
        )
    raise SourceError(
        SourceErrorKind.QUERY_ERROR,
        f"{server} refused a query ({kind}: {message}). Mend the PromQL in the settings or in the mapping it comes from.",
    )


def _raise_unauthorized(answer: HttpResponse, server: str) -> NoReturn:
    fix = {
        401: "Set bearer_token, or username and password",
        403: "These credentials may not query: give them that right, or set the tenant header that it asks for",
        407: "Set the proxy's credentials in HTTPS_PROXY, or name the host in NO_PROXY",
    }[answer.status]
    raise SourceError(SourceErrorKind.UNAUTHORIZED, f"{server} answered {answer.status}. {fix}.")


def _raise_redirect(answer: HttpResponse, server: str) -> NoReturn:
    target = urlsplit(answer.headers.get("Location", ""))
    place = f"{target.scheme}://{target.hostname}" if target.hostname else "another page"  # no tokens from its query
    raise bad_response_error(
        server, f"it redirects ({answer.status}) to {place}: a login page, or an address that has moved"
    )


def _raise_status(answer: HttpResponse, server: str) -> NoReturn:
    if answer.status == 429:
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} answered 429, too many requests. Ask it less often, or raise the tenant's limit there.",
        )
    if answer.status in (502, 503, 504):
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} answered {answer.status}: it is starting, overloaded, or a proxy finds nothing behind it."
            " Is it running?",
        )
    raise bad_response_error(server, f"it answered {answer.status}")


def _raise_not_json(answer: HttpResponse, server: str) -> NoReturn:
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if "html" in kind or answer.body.lstrip()[:1] == b"<":
        raise bad_response_error(server, "it answered with a web page instead of JSON, perhaps a proxy's login page")
    raise bad_response_error(server, "the answer is not JSON, or was cut off")


def _truncate(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[:_MAX_MESSAGE_CHARACTERS] + "..."
