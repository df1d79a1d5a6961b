"""The table of signals in docs/serving.md is what the mappings have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from gpu_advisor.sources.exporters.serving.mapping import UNDERSCORED, server_mappings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serving.md"

#: The columns, and the quantities of which a server publishes one.
COLUMNS: Mapping[str, Collection[str]] = {
    "running": ("running",),
    "waiting": ("waiting",),
    "KV cache": ("kv_usage",),
    "preemptions": ("preemptions",),
    "time to first token": ("ttft",),
    "inter-token latency": ("itl",),
    "tokens": ("generation_tokens",),
    "prefix cache": ("prefix_hits",),
    "executions": ("batch",),
    "limit": ("max_num_seqs",),
}


def test_the_table_has_what_the_mappings_have() -> None:
    rows = [f"| server | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for mapping in server_mappings():
        if not mapping.name.endswith(UNDERSCORED):
            cells = ("yes" if set(names) & mapping.quantities.keys() else "" for names in COLUMNS.values())
            rows.append(" | ".join((f"| {mapping.title}", *cells)) + " |")
    table = "\n".join(row.replace("|  |", "| |").replace("|  |", "| |") for row in rows)
    assert table in PAGE.read_text(encoding="utf-8"), f"write into docs/serving.md:\n{table}"
