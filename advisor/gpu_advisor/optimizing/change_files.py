"""What is recommended, as files that a person reads, reviews and applies. Pure: the same advice, the same files.

Nothing is made up: a setting is written only where the advice names its value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from gpu_advisor.documents.schema import RecommendationSummary, WhatIf, WhatIfPool
from gpu_advisor.optimizing.target_overrides import TargetOverrides
from gpu_advisor.report.formatting import humanize, percent, signed_money
from gpu_advisor.report.markdown import escape_markdown

MANIFEST, SUMMARY, SETTINGS = "changes.json", "README.md", "advisor-settings.yml"

#: A line of advice that has this text -> the setting, under the names of Hugging Face's TrainingArguments
#: (https://huggingface.co/docs/transformers/main_classes/trainer), which most trainers' own resemble.
_TRAINER_SETTINGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("persistent_workers=True", {"dataloader_persistent_workers": True}),
    ("prefetch_factor=4", {"dataloader_prefetch_factor": 4}),
    ("pin_memory=True", {"dataloader_pin_memory": True}),
    ("dtype=torch.bfloat16", {"bf16": True}),
    ("dtype=torch.float16", {"fp16": True}),
    ("set_float32_matmul_precision", {"tf32": True}),
    ("gradient_checkpointing_enable", {"gradient_checkpointing": True}),
    ("torch.compile(model)", {"torch_compile": True}),
)

_MAX_NAME_CHARACTERS = 60

_SEVERITY_ORDER = {"critical": 0, "warning": 1, "info": 2}


def by_urgency(advice: Sequence[RecommendationSummary]) -> list[RecommendationSummary]:
    """The most urgent first."""
    return sorted(advice, key=lambda each: (_SEVERITY_ORDER[each["severity"]], each["id"]))


def files(answer: WhatIf, targets: TargetOverrides) -> dict[str, str]:
    """Contents by name. The manifest, which comes last, has the hash of each of the others."""
    found = dict(_files(answer, targets))
    found[SUMMARY] = _summary(answer, targets, sorted(found))
    found[MANIFEST] = json.dumps(_manifest(answer, targets, found), indent=2, ensure_ascii=False) + "\n"
    return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _files(answer: WhatIf, targets: TargetOverrides) -> Iterator[tuple[str, str]]:
    if targets.changes:
        head = "# What was asked for, to be merged into the advisor's settings.\n"
        yield SETTINGS, head + _yaml(_to_settings(targets))
    for scope, settings, why in _trainer_files(answer["then"]):
        yield (
            f"trainer-{slug(scope)}.yml",
            _comment_header(why, "To be merged into the settings of the trainer.") + _yaml(settings),
        )
    for pool in pools_to_resize(answer["pools"]):
        why = [f"pool {pool['name']}: {pool['replicas']} -> {pool['desired_then']} replicas"]
        how = "kubectl patch deployment NAME -n NAMESPACE --patch-file THIS-FILE; not where an HPA or KEDA scales it."
        yield (
            f"replicas-{slug(pool['name'])}.yml",
            _comment_header(why, how) + _yaml({"spec": {"replicas": pool["desired_then"]}}),
        )


def pools_to_resize(pools: Sequence[WhatIfPool]) -> list[WhatIfPool]:
    """Serving pools that should have another size."""
    return [each for each in pools if each["desired_then"] is not None and each["desired_then"] != each["replicas"]]


def _trainer_files(advice: Sequence[RecommendationSummary]) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """By scope, for one trainer may get several pieces of advice: its settings, and the summaries behind them."""
    by_scope: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for each in advice:
        settings = trainer_settings(each)
        if settings:
            known, why = by_scope.setdefault(each["scope"]["label"], ({}, []))
            known.update(settings)
            why.append(each["summary"])
    for scope, (settings, why) in sorted(by_scope.items()):
        yield scope, settings, why


def trainer_settings(each: RecommendationSummary) -> dict[str, Any]:
    """What the advice sets in a trainer; nothing where it names no value."""
    settings: dict[str, Any] = {}
    if each["kind"] == "batch_size" and each["unit"] == "samples":
        settings["per_device_train_batch_size"] = int(each["recommended"])
    for line in each["apply"]:
        if not line.lstrip().startswith("#"):
            for text, found in _TRAINER_SETTINGS:
                if text in line:
                    settings.update(found)
    return settings


def _to_settings(targets: TargetOverrides) -> dict[str, Any]:
    """In the shape of the configuration file, where pools are a list."""
    changes = dict(targets.changes)
    if "pools" in changes:
        changes["pools"] = [{"name": name, **change} for name, change in changes["pools"].items()]
    return changes


def _comment_header(why: Sequence[str], how: str) -> str:
    return "".join(f"# {_one_line(line)}\n" for line in (*why, how))


def _yaml(value: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(value), sort_keys=True, allow_unicode=True)
    return text


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def slug(name: str) -> str:
    """A file's name of anything; two names that look alike then are told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_MAX_NAME_CHARACTERS]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _summary(answer: WhatIf, targets: TargetOverrides, names: Sequence[str]) -> str:
    return "\n".join(_summary_lines(answer, targets, names)) + "\n"


def _summary_lines(answer: WhatIf, targets: TargetOverrides, names: Sequence[str]) -> Iterator[str]:
    yield f"# What to change in cluster {escape_markdown(answer['cluster'])}"
    yield f"\nTargets: {describe_targets(targets)}. Written by gpu-advisor optimize, which writes it anew; edit copies."
    yield "\nWhat can be told as a setting is in these files:\n" if names else "\nNone of it can be told as a setting."
    yield from (f"- `{name}`" for name in names)
    if not answer["then"]:
        yield "\nNothing is to be changed for these targets."
    for each in by_urgency(answer["then"]):
        yield f"\n## {escape_markdown(each['summary'])}\n"
        yield f"- change: {change(each)}"
        yield f"- cause: {escape_markdown(humanize(each['diagnosis']))} (confidence: {each['confidence']})"
        yield f"- utilization then: {percent(each['projection']['utilization_ratio'])}"
        if each["projection"]["cost_change_per_hour"] is not None:
            yield f"- cost: {signed_money(each['projection']['cost_change_per_hour'])} per hour"
        yield f"- id: {each['id']}\n"
        yield from (f"    {_one_line(line)}" for line in each["apply"])


def change(each: RecommendationSummary) -> str:
    return f"{each['current']:g} -> {each['recommended']:g} {each['unit']}"


def describe_targets(targets: TargetOverrides) -> str:
    given = {
        "GPU": targets.gpu, "GPU memory": targets.memory, "CPU": targets.cpu,
        "scale up above": targets.scale_up, "scale down below": targets.scale_down,
    }  # fmt: skip
    told = ", ".join(f"{name} {value:g} %" for name, value in given.items() if value is not None)
    where = f" for pool {escape_markdown(targets.pool)}" if targets.pool else ""
    return f"{told or 'as the settings have them'}{where}"


def _manifest(answer: WhatIf, targets: TargetOverrides, found: Mapping[str, str]) -> dict[str, Any]:
    return {
        "cluster": answer["cluster"],
        "asked": targets.changes,
        "changes": by_urgency(answer["then"]),
        "files": {name: digest(text) for name, text in sorted(found.items())},
    }
