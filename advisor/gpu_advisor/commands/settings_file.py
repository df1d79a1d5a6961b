"""A first settings file for what was found, with the rest as comments. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FoundFleet:
    """Where the data comes from (a Prometheus, or exporters), and GPUs by model."""

    prometheus: str = ""
    exporters: Sequence[str] = ()
    gpus_by_model: Mapping[str, int] | None = None


def settings_yaml(found: FoundFleet) -> str:
    """The file's text. Valid as it is; each comment is valid once uncommented."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: FoundFleet) -> Iterator[str]:
    yield "# Settings of gpu-advisor: docs/configuration.md has all of them. Check changes with"
    yield "#   gpu-advisor check-config FILE"
    yield ""
    yield "source:"
    if found.prometheus:
        yield "  prometheus:"
        yield f"    url: {_quoted(found.prometheus)}"
    else:
        yield "  embedded: # a history of its own; the exporters are scraped by the advisor"
        yield f"    targets: [{', '.join(map(_quoted, found.exporters))}]"
    models = dict(found.gpus_by_model or {})
    yield ""
    yield "# What a GPU costs per hour. Without prices, list prices of the clouds are an estimate."
    yield "# cost:"
    yield "#   currency: USD"
    yield "#   gpu_price_per_hour:"
    for model, count in sorted(models.items()):
        yield f"#     {_quoted(model)}: 2.50 # {count} here"
    if not models:
        yield '#     "NVIDIA H100 80GB HBM3": 2.50'
    yield ""
    yield "# Pools of GPUs that scale together; the others are grouped by model. `match` has regular expressions."
    yield "# pools:"
    yield "# - name: inference"
    yield "#   kind: serving"
    yield '#   match: {node: "inference-.*"}'
    yield "#   gpu: {min: 1, max: 8}"
    yield ""
    yield "# Teams, for waste by team and for alerts to their owners."
    yield "# teams:"
    yield "# - name: research"
    yield '#   namespaces: ["research-.*"]'
    yield ""
    yield "# alertmanagers:"
    yield "# - url: http://127.0.0.1:9093"


def _quoted(text: str) -> str:
    """A YAML string: JSON's are."""
    return json.dumps(text)
