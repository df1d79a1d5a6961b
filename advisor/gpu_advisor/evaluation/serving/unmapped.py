"""Inference servers whose metrics no mapping reads, or nobody scrapes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.workload_kind import SERVERS

#: Servers that publish no metrics at all: https://github.com/ollama/ollama/blob/main/docs/api.md
WITHOUT_METRICS = frozenset({"ollama"})


def unread_servers(facts: Facts) -> Iterator[str]:
    """What is not read, and how to fix it."""
    for title, metric in facts.serving.unmapped.items():
        yield (
            f"{title} publishes {metric}, which no mapping reads: only the utilization of its GPUs is judged. Servers "
            "that are read are in docs/serving.md"
        )
    known = {uuid for each in facts.serving.replicas for uuid in each.gpus}
    if any(not each.gpus for each in facts.serving.replicas):
        return  # a server without its GPUs may be theirs
    names = Counter(
        name for gpu in facts.gpus if gpu.uuid not in known and (name := _server_of(facts.owners.get(gpu.uuid, ())))
    )
    for name, count in sorted(names.items()):
        gpus = "1 GPU belongs" if count == 1 else f"{count} GPUs belong"
        fix = "it publishes none" if name in WITHOUT_METRICS else "let Prometheus scrape its metrics"
        yield f"{gpus} to an inference server ({name}) without metrics: {fix}"


def _server_of(owners: tuple[GpuOwner, ...]) -> str | None:
    names = (name for owner in owners for name in (owner.container, owner.unit, owner.pod))
    return next((found[0].lower() for name in names if (found := SERVERS.search(name))), None)
