"""Parse responses of the Prometheus HTTP API, with a specific error for each kind of failure. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from gpu_advisor.promql.expressions import Labels, TimeSeries
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.http_client import HttpResponse

#: Prometheus 2.48 to 2.53 sends what it notices about a query's style among the warnings, later ones as `infos`.
_INFO_PREFIX = "PromQL info:"

_MAX_MESSAGE_CHARACTERS = 300  # of a server's own message

#: 10,000 GPUs have some 20,000 results per query.
MAX_SERIES = 150_000
MAX_SAMPLES = 1_500_000

_RESULTS = re.compile(rb'"resultType"\s*:\s*"([a-z]+)"\s*,\s*"result"\s*:\s*\[')
_NEXT = re.compile(r"[\s,]*")
_MAX_HEAD_BYTES = 4096
#: Of a document that is parsed as a whole, which takes up to twenty times the memory.
_MAX_DOCUMENT_BYTES = 8 << 20
_WINDOW_BYTES = 1 << 18
_MAX_RESULT_BYTES = 8 << 20

T = TypeVar("T")


def response_data(response: HttpResponse, server: str) -> Any:
    """The `data` of a complete, successful response. `server` names the server in messages. Raises SourceError."""
    if response.status in (401, 403, 407):
        _raise_unauthorized(response, server)
    if 300 <= response.status < 400:
        _raise_redirect(response, server)
    if len(response.body) > _MAX_DOCUMENT_BYTES:
        raise bad_response_error(server, "it returned a large document that is no result of a query")
    if response.status == 429:  # Mimir has a JSON error as well, which is not of the query
        _raise_too_many_requests(response, server)
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


def read_vector(response: HttpResponse, server: str) -> dict[Labels, float]:
    """The instant vector of a response, in bounded memory. Raises SourceError."""
    return parse_vector(streamed_data(response, server), server)


def read_matrix(response: HttpResponse, server: str) -> dict[Labels, TimeSeries]:
    """The matrix of a response, in bounded memory. Raises SourceError."""
    return parse_matrix(streamed_data(response, server), server)


def streamed_data(response: HttpResponse, server: str) -> Any:
    """As response_data, but `result` is an iterator that parses one result at a time.

    Parsed as a whole, a response takes ten times the memory of its text. What follows the results, such as warnings,
    is checked when the iterator ends. Raises SourceError, also while it is iterated over.
    """
    found = _RESULTS.search(response.body, 0, _MAX_HEAD_BYTES) if response.status == 200 else None
    if found is None:
        return response_data(response, server)
    return {"resultType": found[1].decode(), "result": _stream(response, found.end(), server)}


def _stream(response: HttpResponse, start: int, server: str) -> Iterator[Any]:
    """The results from `start`, right behind the array's bracket."""
    body, decoder = response.body, json.JSONDecoder()
    at, size, text = start, _WINDOW_BYTES, ""
    while True:
        window = bytes(body[at : at + size])
        try:
            text = window.decode("utf-8", "strict" if at + size >= len(body) else "ignore")
        except UnicodeDecodeError:
            raise bad_response_error(server, "the response is not JSON, or truncated") from None
        used = 0  # characters
        while True:
            first = _NEXT.match(text, used)
            if first is None or first.end() == len(text):
                break  # a whole window of white space, or its end
            if text[first.end()] == "]":
                tail = at + len(text[: first.end()].encode())
                around = bytes(body[:start]) + bytes(body[tail:])
                response_data(HttpResponse(response.status, response.headers, around), server)
                return
            try:
                item, used = decoder.raw_decode(text, first.end())
            except (ValueError, RecursionError):
                break  # incomplete, or not JSON
            yield item
        if used:
            at, size = at + len(text[:used].encode()), _WINDOW_BYTES
        elif at + size >= len(body) or size >= _MAX_RESULT_BYTES:
            raise bad_response_error(server, "the response is not JSON, or truncated")
        else:
            size *= 4  # one result that is longer than the window


def parse_vector(data: Any, server: str) -> dict[Labels, float]:
    """An instant vector, with NaN and infinities. Raises SourceError(BAD_RESPONSE) for any other shape.

    Native histograms have no value: they are left out.
    """
    return parse_results(
        data, "vector", lambda item: None if is_histogram(item, "value") else float(item["value"][1]), server
    )


def parse_matrix(data: Any, server: str) -> dict[Labels, TimeSeries]:
    """A matrix without non-finite values and without empty series. Raises SourceError."""

    count = 0

    def series(item: Mapping[str, Any]) -> TimeSeries | None:
        nonlocal count
        if is_histogram(item, "values"):
            return None
        count += len(item["values"])
        if count > MAX_SAMPLES:
            raise bad_response_error(server, f"more than {MAX_SAMPLES} samples, which would fill the memory")
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
            if len(found) >= MAX_SERIES:
                raise bad_response_error(server, f"more than {MAX_SERIES} series, which would fill the memory")
            if labels in found:
                raise bad_response_error(server, "two results have the same labels")
            result = read(item)
            if result is not None:
                found[labels] = result
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise bad_response_error(server, f"the results do not have the shape of a {kind}") from error
    return found


def is_histogram(item: Mapping[str, Any], values: Literal["value", "values"]) -> bool:
    """Whether a result has native histograms instead of values:
    https://prometheus.io/docs/prometheus/latest/querying/api/#native-histograms
    """
    return values not in item and values.replace("value", "histogram") in item


def parse_labels(metric: Mapping[str, Any]) -> Labels:
    """The labels of a result. Raises TypeError, AttributeError for another shape."""
    pairs = sorted(metric.items())  # sorted already in Prometheus' responses, so cheap
    plain = True
    for name, value in pairs:
        if not isinstance(value, str):
            raise TypeError("label values must be text")
        plain = plain and value != "" and name != "__name__" and value.isascii() and name.isascii()
    if plain:
        return tuple(pairs)
    return tuple((_text(name), _text(value)) for name, value in pairs if value and name != "__name__")


def _text(label: str) -> str:
    """Without halves of surrogate pairs, which JSON can have: no page, database or alert could be written with one."""
    return label if label.isascii() else label.encode("utf-8", "replace").decode()


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
    kind, whole_message = str(document.get("errorType", "")), str(document.get("error", ""))
    message = _truncate(whole_message)
    if kind in ("timeout", "canceled"):
        raise SourceError(
            SourceErrorKind.TIMEOUT,
            f"{server} aborted a query ({kind}: {message}). Raise --query.timeout there, or query less often.",
        )
    if kind in ("unavailable", "internal", "500", "502", "503"):  # VictoriaMetrics has the status here
        raise SourceError(
            SourceErrorKind.UNREACHABLE,
            f"{server} is unavailable ({kind}: {message}). Check that server's log.",
        )
    # VictoriaMetrics and Mimir name the limit: -search.maxQueryLen, which hundreds of listed GPUs exceed, and others.
    limit = re.search(r"-[a-z-]+\.max[\w-]+", whole_message)
    if limit is not None or "too many samples" in whole_message:
        fix = f"Raise {limit[0] if limit else '--query.max-samples'} there"
    else:
        fix = "Fix the PromQL in the settings or in the mapping it comes from"
    raise SourceError(SourceErrorKind.QUERY_ERROR, f"{server} rejected a query ({kind}: {message}). {fix}.")


def _raise_unauthorized(response: HttpResponse, server: str) -> NoReturn:
    fix = {
        401: "Set bearer_token, or username and password, or the tenant in headers (X-Scope-OrgID)",
        403: "These credentials may not query: grant them read access, or set the tenant header that it requires",
        407: "Set the proxy's credentials in HTTPS_PROXY, or add the host to NO_PROXY",
    }[response.status]
    raise SourceError(SourceErrorKind.UNAUTHORIZED, f"{server} returned {response.status}. {fix}.")


def _raise_redirect(response: HttpResponse, server: str) -> NoReturn:
    target = urlsplit(response.headers.get("Location", ""))
    place = f"{target.scheme}://{target.hostname}" if target.hostname else "another page"  # no tokens from its query
    raise bad_response_error(server, f"it redirects ({response.status}) to {place}: a login page, or a moved address")


def _raise_too_many_requests(response: HttpResponse, server: str) -> NoReturn:
    wait = response.headers.get("Retry-After", "")
    asks = f" and asks to wait {wait} s" if wait.isdigit() else ""
    raise SourceError(
        SourceErrorKind.UNREACHABLE,
        f"{server} returned 429 Too Many Requests{asks}. Query less often (evaluation.interval_seconds), or raise the"
        " tenant's limit there.",
    )


def _raise_status(response: HttpResponse, server: str) -> NoReturn:
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
