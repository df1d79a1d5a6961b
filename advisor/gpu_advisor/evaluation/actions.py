"""Actions: what a recommendation changes, as data. Text, files and patches are rendered from them; nothing parses text.

Kinds, and their parameters:
- `configure_trainer`: settings by the names of Hugging Face's TrainingArguments
  (https://huggingface.co/docs/transformers/main_classes/trainer), which most trainers' own resemble
- `configure_server`: flags of an inference server, by their full names (`--max-num-seqs`); True for one without a value
- `edit_code`: `python`, a line of code
- `run_command`: `argv`, a command with its arguments; words in capitals are placeholders
- `scale_replicas`: `replicas`, the new number
- `note`: none; its `note` is for people only
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gpu_advisor.rendering.escaping import one_line

ActionKind = Literal["configure_trainer", "configure_server", "edit_code", "run_command", "scale_replicas", "note"]
ParameterValue = bool | int | float | str | tuple[str, ...]

#: Kinds that change something at once when they are run.
_COMMANDS = frozenset({"run_command", "scale_replicas"})

#: A trainer setting as an argument of PyTorch's DataLoader, or as a line of code.
_LOADER_ARGUMENTS: Mapping[str, str] = {
    "per_device_train_batch_size": "batch_size",
    "dataloader_persistent_workers": "persistent_workers",
    "dataloader_prefetch_factor": "prefetch_factor",
    "dataloader_pin_memory": "pin_memory",
}
_TRAINER_CODE: Mapping[str, str] = {
    "bf16": "with torch.autocast('cuda', dtype=torch.bfloat16): ...",
    "fp16": "with torch.autocast('cuda', dtype=torch.float16): ...",
    "tf32": "torch.set_float32_matmul_precision('high')",
    "gradient_checkpointing": "model.gradient_checkpointing_enable()",
    "torch_compile": "model = torch.compile(model)",
}


@dataclass(frozen=True, slots=True)
class Action:
    """One change. `target` is a job, pool or node, empty where any; `note` says when or why."""

    kind: ActionKind
    target: str = ""
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict, hash=False)
    note: str = ""


def configure_trainer(job: str, note: str = "", /, **settings: bool | int) -> Action:
    return Action("configure_trainer", job, settings, note)


def configure_server(server: str, flags: Mapping[str, bool | int | float | str], note: str = "") -> Action:
    return Action("configure_server", server, dict(flags), note)


def edit_code(python: str, note: str = "") -> Action:
    return Action("edit_code", "", {"python": python}, note)


def run_command(*argv: str, node: str = "", note: str = "") -> Action:
    return Action("run_command", node, {"argv": argv}, note)


def notes(*texts: str) -> tuple[Action, ...]:
    return tuple(Action("note", note=text) for text in texts)


def without_commands(actions: Iterable[Action]) -> tuple[Action, ...]:
    """What remains of the actions while the data is missing that would confirm them: nothing to run."""
    return (
        *notes("commands are hidden while data is missing: check that this still applies before you change anything"),
        *(action for action in actions if action.kind not in _COMMANDS),
    )


def render(actions: Iterable[Action]) -> tuple[str, ...]:
    """A line each, to paste into a shell or a program: labels are quoted and cannot start a line of their own."""
    return tuple(one_line(_render(action)) for action in actions)


def _render(action: Action) -> str:
    code = _code(action.kind, action.parameters)
    return "  # ".join(part for part in (code, action.note) if part) if code else f"# {action.note}"


def _code(kind: ActionKind, parameters: Mapping[str, ParameterValue]) -> str:
    if kind == "run_command":
        argv = parameters["argv"]
        return shlex.join(argv) if isinstance(argv, tuple) else str(argv)
    if kind == "configure_server":
        return " ".join(name if value is True else f"{name} {value}" for name, value in parameters.items())
    if kind == "configure_trainer":
        loader = ", ".join(f"{_LOADER_ARGUMENTS[k]}={v}" for k, v in parameters.items() if k in _LOADER_ARGUMENTS)
        code = [_TRAINER_CODE.get(k, f"{k}={v}") for k, v in parameters.items() if k not in _LOADER_ARGUMENTS]
        return "; ".join([f"DataLoader(..., {loader})"] * bool(loader) + code)
    if kind == "scale_replicas":
        return f"kubectl scale deployment/NAME --replicas={parameters['replicas']}"
    return str(parameters.get("python", ""))
