"""Writes docs/api.md, the page of the API, from the operations as the code declares them.

python docs/build_api.py            writes it
python docs/build_api.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from generated_page import main, table
from gpu_advisor.web.api.base import Operation
from gpu_advisor.web.api.operations import OPERATIONS
from gpu_advisor.web.api.query_parameters import Parameter, TextParameter

PAGE = Path(__file__).with_name("api.md")
COMMAND = "python docs/build_api.py"

INTRODUCTION = f"""# The advisor's API

Made by `{COMMAND}` from the operations as the code declares them: do not edit. Every running advisor serves its
OpenAPI document, with the shapes of all answers, at `/openapi.json`; without one, `gpu_advisor.web.api.openapi` makes
it.

    curl -s http://127.0.0.1:9817/recommendations
    curl -s 'http://127.0.0.1:9817/recommendations?kind=idle_reclaim&format=csv'
    curl -s http://127.0.0.1:9817/checks?status=missed
    curl -s -X POST -H 'Content-Type: application/json' http://127.0.0.1:9817/what-if \\
      -d '{{"resources": {{"gpu": {{"target_utilization": 80, "scale_up_threshold": 75}}}}}}'

- **Ids** of recommendations are stable: a hash of cluster, kind, scope and direction, never of values.
- **Pages**: `page` and `per_page`; the header `Link` names the others. `format=csv` has all on one page.
- **ETag**: answers marked ✓ have one; with `If-None-Match`, an answer that has not changed is `304` without a body.
- **Errors** are problem documents (RFC 9457) that name the parameter or field and the mend. Unknown parameters are
  refused.
- **Access**: with `web.users` or `web.bearer_token_file` set, all but `/-/healthy` and `/-/ready` asks for a login.
- **A source that is away** makes answers stale (`"stale": true`), and takes nothing out of service. Null is never
  zero.
- **Simulated** GPUs are said to be so: `"simulated": true`.
"""


def text() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *_operations(), "", *_parameters()])


def _operations() -> list[str]:
    rows = [
        (
            each.method,
            f"`{each.path}`",
            each.summary,
            ", ".join(dict.fromkeys(media.partition(";")[0] for media in each.responses)) or str(each.status),
            "✓" if each.has_etag else "",
        )
        for each in OPERATIONS.values()
    ]
    return table(("method", "path", "", "answers", "ETag"), rows)


def _parameters() -> Iterator[str]:
    for each in OPERATIONS.values():
        if each.parameters or each.body:
            yield f"## {each.method} {each.path}\n"
            yield from _request_body(each)
            yield ""


def _request_body(operation: Operation) -> Iterator[str]:
    if operation.parameters:
        rows = ((f"`{each.name}`", _choices(each), each.about) for each in operation.parameters)
        yield from table(("parameter", "value", "meaning"), rows)
    if operation.body:
        rows = ((f"`{name}`", info.description or "") for name, info in operation.body.model_fields.items())
        yield f"{(operation.body.__doc__ or '').strip()}\n"
        yield from table(("field of the body", "meaning"), rows)


def _choices(parameter: Parameter) -> str:
    if isinstance(parameter, TextParameter):
        return ", ".join(f"`{each}`" for each in parameter.choices) or "text"
    otherwise = "" if parameter.default is None else f", else {parameter.default}"
    return f"{parameter.low:g} to {parameter.high:g}{otherwise}"


if __name__ == "__main__":
    sys.exit(main(PAGE, text(), COMMAND))
