"""Actions as text: one line each, quoted, with nothing lost."""

from __future__ import annotations

import shlex

import pytest
from gpu_advisor.evaluation.actions import Action, configure_trainer, edit_code, notes, render, run_command
from gpu_advisor.state.serialization import deserialize, serialize
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = (
    (configure_trainer("j", "no scaling", bf16=True),
     "with torch.autocast('cuda', dtype=torch.bfloat16): ...  # no scaling"),
    (configure_trainer("j", dataloader_prefetch_factor=4, dataloader_pin_memory=True),
     "DataLoader(..., prefetch_factor=4, pin_memory=True)"),
    (configure_trainer("j", per_device_train_batch_size=8, tf32=True),
     "DataLoader(..., batch_size=8); torch.set_float32_matmul_precision('high')"),
    (configure_trainer("j", of_a_later_version=3), "of_a_later_version=3"),
    (edit_code("model.eval()", "before validation"), "model.eval()  # before validation"),
    (run_command("kubectl", "cordon", "a b", node="a b"), "kubectl cordon 'a b'"),
    (Action("scale_replicas", "chat", {"replicas": 3}), "kubectl scale deployment/NAME --replicas=3"),
    (*notes("clean the fans"), "# clean the fans"),
)  # fmt: skip


@pytest.mark.parametrize(("action", "line"), EXAMPLES)
def test_an_action_as_text(action: Action, line: str) -> None:
    assert render([action]) == (line,)


@pytest.mark.parametrize("action", [action for action, _ in EXAMPLES])
def test_an_action_survives_the_ledger(action: Action) -> None:
    assert deserialize(Action, serialize(action)) == action


@given(st.text(), st.text())
def test_a_label_stays_one_argument_on_one_line(name: str, note: str) -> None:
    [line] = render([run_command("nvidia-smi", "-i", name, note=note)])
    assert line.isprintable()
    printable = "".join(each if each.isprintable() else "?" for each in name)
    assert shlex.split(line, comments=True) == ["nvidia-smi", "-i", printable]
