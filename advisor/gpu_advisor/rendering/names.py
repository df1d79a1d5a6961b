"""Names of the documents in words, for people: the same on the page, in the report and in files."""

from __future__ import annotations

from collections.abc import Mapping

#: Where the field has its own words.
_WORDS: Mapping[str, str] = {
    "bad_answer": "bad response",
    "busy_but_empty": "busy, low SM activity",
    "cause_gone": "cause resolved",
    "full_precision": "FP32 compute",
    "idle_holding_memory": "idle, memory allocated",
    "idle_reclaim": "reclaim idle GPUs",
    "throttled_power": "power throttling",
    "throttled_thermal": "thermal throttling",
    "wrong_instance_size": "GPU larger than needed",
}

_ACRONYMS: Mapping[str, str] = {
    "cpu": "CPU",
    "gpu": "GPU",
    "gpus": "GPUs",
    "io": "I/O",
    "kv": "KV",
    "pcie": "PCIe",
    "slo": "SLO",
    "sm": "SM",
}


def humanize(name: str) -> str:
    """`idle_holding_memory` -> `idle, memory allocated`, `lost_gpu` -> `lost GPU`"""
    between = "-" if name.endswith("_bound") else " "
    return _WORDS.get(name) or between.join(_ACRONYMS.get(word, word) for word in name.split("_"))
