"""Inference servers whose metrics no mapping reads, or nobody scrapes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.workload_kind import SERVERS

#: Where each server has its metrics, by the usual names of its containers, and what switches them on. Sources: the
#: files in sources/exporters/serving; https://github.com/ollama/ollama/blob/main/docs/api.md has none.
SCRAPE = "let Prometheus scrape"
HOW_TO_PUBLISH: Mapping[str, str] = {
    "vllm": f"{SCRAPE} /metrics of its API port, and start it without --disable-log-stats",
    "sglang": f"start it with --enable-metrics and {SCRAPE} /metrics of its API port",
    "tgi": f"{SCRAPE} /metrics of its API port",
    "text-generation-inference": f"{SCRAPE} /metrics of its API port",
    "text-embeddings-inference": f"{SCRAPE} /metrics of its API port",
    "tritonserver": f"{SCRAPE} /metrics of port 8002, and start it without --allow-metrics=false",
    "triton-server": f"{SCRAPE} /metrics of port 8002, and start it without --allow-metrics=false",
    "trtllm": f"set return_perf_metrics: true in trtllm-serve's config, and {SCRAPE} /prometheus/metrics",
    "tensorrt-llm": f"set return_perf_metrics: true in trtllm-serve's config, and {SCRAPE} /prometheus/metrics",
    "tensorrtllm": f"set return_perf_metrics: true in trtllm-serve's config, and {SCRAPE} /prometheus/metrics",
    "lmdeploy": f"{SCRAPE} /metrics of its API port",
    "llama-server": f"start it with --metrics and {SCRAPE} /metrics of its API port",
    "ollama": "it publishes none",
}

#: Addresses in one message.
MAX_NAMED = 3


def unread_servers(facts: Facts) -> Iterator[str]:
    """What is not read, and how to fix it."""
    for title, metric in facts.serving.unmapped.items():
        yield (
            f"{title} publishes {metric}, which no mapping reads: only the utilization of its GPUs is judged. Servers "
            "that are read are in docs/serving.md"
        )
    if facts.serving.quiet:
        yield (
            f"{_some(facts.serving.quiet)}: requests for completions, and no metric of an engine. vLLM needs a start "
            "without --disable-log-stats, SGLang one with --enable-metrics; of a gateway, scrape the servers behind it"
        )
    for title, addresses in facts.serving.silent.items():
        yield (
            f"{_some(addresses)}: {title} publishes neither requests running nor waiting, without which it is not "
            "judged: look whether a newer version does"
        )
    if facts.serving.routers:
        yield (
            f"{_some(facts.serving.routers)}: a router shows gauges of its servers, and nobody scrapes these. Let "
            "Prometheus scrape /metrics of each server"
        )
    known = {uuid for each in facts.serving.replicas for uuid in each.gpus}
    if any(not each.gpus for each in facts.serving.replicas):
        return  # a server without its GPUs may be theirs
    names = Counter(
        name for gpu in facts.gpus if gpu.uuid not in known and (name := _server_of(facts.owners.get(gpu.uuid, ())))
    )
    for name, count in sorted(names.items()):
        gpus = "1 GPU belongs" if count == 1 else f"{count} GPUs belong"
        fix = HOW_TO_PUBLISH.get(name, f"{SCRAPE} its metrics")
        yield f"{gpus} to an inference server ({name}) without metrics: {fix}"


def _some(addresses: Sequence[str]) -> str:
    rest = f" and {len(addresses) - MAX_NAMED} more" if len(addresses) > MAX_NAMED else ""
    return ", ".join(addresses[:MAX_NAMED]) + rest


def _server_of(owners: tuple[GpuOwner, ...]) -> str | None:
    names = (name for owner in owners for name in (owner.container, owner.unit, owner.pod))
    return next((found[0].lower() for name in names if (found := SERVERS.search(name))), None)
