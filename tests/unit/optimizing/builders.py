"""An advisor that answers what-ifs over made-up facts, by the code that answers them for real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpu_advisor.commands.errors import CommandError
from gpu_advisor.documents import schema, serialize
from gpu_advisor.evaluation.what_if import WhatIfError, apply_changes, compare_settings
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import SourceStatus, View

from tests.unit.advisor.builders import AT, GpuSpec, concluded

SETTINGS = Settings.model_validate(
    {
        "pools": [
            {"name": "chat", "kind": "serving", "match": {"node": "s"}},
            {"name": "rest", "kind": "training", "match": {"node": "r"}, "gpu": {"min": 0, "max": 8}},
        ]
    }
)
HISTORY = tuple((AT - 60 * step, 0.95) for step in reversed(range(16)))
GPUS = [
    *(GpuSpec(f"GPU-s{n}", 0.95, node="s", trail=HISTORY) for n in range(4)),
    *(GpuSpec(f"GPU-r{n}", 0.0, node="r") for n in range(3)),
]


class FakeAdvisorClient:
    """As asking.Asked."""

    def __init__(self, settings: Settings = SETTINGS, up: bool = True, **facts: Any) -> None:
        self.settings, self.facts = settings, facts
        self.source = SourceStatus("fake", "memory", up, message="" if up else "no answer", last_success=AT)

    def what_if(self, changes: Mapping[str, Any]) -> schema.WhatIf:
        evaluation = concluded(GPUS, self.settings)
        evaluation = replace(evaluation, facts=replace(evaluation.facts, **self.facts))
        try:
            other = apply_changes(self.settings, changes)
        except WhatIfError as error:
            raise CommandError(str(error)) from error
        view = View("test", self.source, evaluation)
        return serialize.what_if(view, compare_settings(evaluation, self.settings, other))
