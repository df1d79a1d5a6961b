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

from gpu_advisor.documents.schema import ActionDocument, RecommendationSummary, WhatIf
from gpu_advisor.evaluation.actions import ActionKind
from gpu_advisor.optimizing.target_overrides import TargetOverrides
from gpu_advisor.rendering.escaping import escape_markdown, one_line
from gpu_advisor.report.formatting import humanize, percent, signed_money

MANIFEST, SUMMARY, SETTINGS = "changes.json", "README.md", "advisor-settings.yml"

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
        head = "# The targets you gave, to merge into the advisor's settings.\n"
        yield SETTINGS, head + _yaml(_to_settings(targets))
    for job, settings, why in _trainer_files(answer["then"]):
        header = _comment_header(why, "Merge these into the trainer's settings.")
        yield f"trainer-{slug(job)}.yml", header + _yaml(settings)
    for each in answer["then"]:
        for action in _actions(each, "scale_replicas"):
            pool, replicas = action["target"], action["parameters"]["replicas"]
            why = [f"pool {pool}: {each['current']:g} -> {replicas} replicas"]
            how = "kubectl patch deployment NAME -n NAMESPACE --patch-file THIS-FILE; not if an HPA or KEDA scales it."
            yield f"replicas-{slug(pool)}.yml", _comment_header(why, how) + _yaml({"spec": {"replicas": replicas}})


def _actions(each: RecommendationSummary, kind: ActionKind) -> list[ActionDocument]:
    return [action for action in each["actions"] if action["kind"] == kind]


def _trainer_files(advice: Sequence[RecommendationSummary]) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Job, settings and the summaries behind them: several recommendations may configure one trainer."""
    by_job: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for each in advice:
        for action in _actions(each, "configure_trainer"):
            settings, why = by_job.setdefault(action["target"], ({}, []))
            settings.update(action["parameters"])
            if each["summary"] not in why:
                why.append(each["summary"])
    for job, (settings, why) in sorted(by_job.items()):
        yield job, settings, why


def _to_settings(targets: TargetOverrides) -> dict[str, Any]:
    """In the shape of the configuration file, where pools are a list."""
    changes = dict(targets.changes)
    if "pools" in changes:
        changes["pools"] = [{"name": name, **change} for name, change in changes["pools"].items()]
    return changes


def _comment_header(why: Sequence[str], how: str) -> str:
    return "".join(f"# {one_line(line, ' ')}\n" for line in (*why, how))


def _yaml(value: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(value), sort_keys=True, allow_unicode=True)
    return text


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
        yield from (f"    {one_line(line, ' ')}" for line in each["apply"])


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
