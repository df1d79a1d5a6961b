"""What to change for given targets, on the terminal and as files, which never overwrite others' changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from gpu_advisor.commands import advisor_client
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.optimize import command
from gpu_advisor.documents import serialize
from gpu_advisor.documents.savings import savings_fields
from gpu_advisor.documents.schema import RecommendationSummary
from gpu_advisor.evaluation.actions import Action, configure_trainer, edit_code, notes, render, run_command
from gpu_advisor.optimizing.change_files import MANIFEST, SETTINGS, SUMMARY, change_files, digest, slug
from gpu_advisor.optimizing.target_overrides import TargetOverrides
from gpu_advisor.optimizing.writer import WriteRefusedError, write_files
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.optimizing.builders import FakeAdvisorClient


@pytest.mark.parametrize(
    ("targets", "changes"),
    [
        (TargetOverrides(), {}),
        (TargetOverrides(gpu=90), {"resources": {"gpu": {"target_utilization": 90}}}),
        (
            TargetOverrides(memory=85, cpu=70),
            {"resources": {"memory": {"target_usage": 85}, "cpu": {"target_usage": 70}}},
        ),
        (
            TargetOverrides(gpu=80, scale_up=75, pool="chat"),
            {"pools": {"chat": {"gpu": {"target_utilization": 80, "scale_up_threshold": 75}}}},
        ),
        (
            TargetOverrides(gpu=80, scale_down=40, memory=70, pool="chat"),
            {
                "resources": {"memory": {"target_usage": 70}},
                "pools": {"chat": {"gpu": {"target_utilization": 80, "scale_down_threshold": 40}}},
            },
        ),
    ],
)
def test_what_is_not_given_is_not_asked(targets: TargetOverrides, changes: dict[str, Any]) -> None:
    assert targets.changes == changes


def run(monkeypatch: pytest.MonkeyPatch, answers: FakeAdvisorClient, *arguments: str) -> Result:
    monkeypatch.setattr(advisor_client, "connect", lambda *_: answers)
    return CliRunner().invoke(command, [*arguments], standalone_mode=False)


def test_it_prints_missed_targets_and_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, FakeAdvisorClient(), "--target-gpu", "90", "--exit-code")
    assert "Targets: GPU 90 %" in done.output
    assert "missed   pool rest: GPU utilization 0.0 %, target 90.0 % to 100.0 %" in done.output
    assert "1. [warning] " in done.output
    assert "kubectl scale deployment/NAME --replicas=" in done.output
    assert done.return_value == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target-gpu", "95"), "must be below 90.9"),
        (("--target-gpu", "95"), "give a lower --target-gpu"),
        (("--target-gpu", "80"), "thresholds contradict each other"),
        (("--target-gpu", "80"), "--scale-up and --scale-down"),
        (("--target-gpu", "90", "--pool", "nix"), "there are chat, rest"),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    done = run(monkeypatch, FakeAdvisorClient(), *arguments)
    assert isinstance(done.exception, CommandError)
    assert words in done.exception.message


def test_another_target_changes_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of its own: the other keeps its target."""
    low = json.loads(run(monkeypatch, FakeAdvisorClient(), "--target-gpu", "90", "--format", "json").output)
    high = json.loads(
        run(
            monkeypatch,
            FakeAdvisorClient(),
            "--target-gpu",
            "90",
            "--scale-up",
            "62",
            "--pool",
            "chat",
            "--format",
            "json",
        ).output
    )
    sizes = [next(pool["desired_then"] for pool in answer["pools"] if pool["name"] == "chat") for answer in (low, high)]
    assert sizes[1] > sizes[0]


@pytest.mark.parametrize(
    ("answers", "words"),
    [(FakeAdvisorClient(simulated=True), "simulated"), (FakeAdvisorClient(up=False), "stale")],
)
def test_nothing_is_written_from_what_is_not_real(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: FakeAdvisorClient, words: str
) -> None:
    done = run(monkeypatch, answers, "--apply", str(tmp_path / "changes"))
    assert words in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_files_say_what_to_change_and_are_the_same_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "changes"
    first = run(monkeypatch, FakeAdvisorClient(), "--target-gpu", "90", "--apply", str(folder))
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([MANIFEST, SUMMARY, SETTINGS, "replicas-chat.yml"])
    assert first.stderr.count("written: ") == len(names)
    settings = yaml.safe_load((folder / SETTINGS).read_text())
    assert settings == {"resources": {"gpu": {"target_utilization": 90}}}
    Settings.model_validate(settings)
    patch = yaml.safe_load((folder / "replicas-chat.yml").read_text())
    reported = json.loads((folder / MANIFEST).read_text())
    [scale] = [each for each in reported["changes"] if each["scope"]["name"] == "chat"]
    assert patch == {"spec": {"replicas": scale["recommended"]}}
    assert reported["files"] == {name: digest((folder / name).read_text()) for name in names if name != MANIFEST}
    summary = (folder / SUMMARY).read_text()
    assert all(line in summary for each in reported["changes"] for line in each["apply"])
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run(monkeypatch, FakeAdvisorClient(), "--target-gpu", "90", "--apply", str(folder))
    assert "written: " not in again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


TEXT = st.text(max_size=40)


@given(TEXT, TEXT)
def test_names_of_files_are_names_of_files(one: str, other: str) -> None:
    for name in (one, other):
        made = f"trainer-{slug(name)}.yml"
        assert "/" not in made
        assert "\0" not in made
        assert len(made.encode()) < 120
    assert (slug(one) == slug(other)) == (one == other)


def test_our_own_files_follow_the_advice_and_others_are_left(tmp_path: Path) -> None:
    def found(text: str) -> dict[str, str]:
        return {"a.yml": text, MANIFEST: json.dumps({"files": {"a.yml": digest(text)}})}

    assert write_files(tmp_path, found("1"), force=False) == {"a.yml": True, MANIFEST: True}
    assert write_files(tmp_path, found("2"), force=False) == {"a.yml": True, MANIFEST: True}
    assert (tmp_path / "a.yml").read_text() == "2"
    (tmp_path / "a.yml").write_text("by hand")
    with pytest.raises(WriteRefusedError, match=r"a\.yml"):
        write_files(tmp_path, {**found("3"), "b.yml": "new"}, force=False)
    assert (tmp_path / "a.yml").read_text() == "by hand"
    assert not (tmp_path / "b.yml").exists()
    write_files(tmp_path, found("3"), force=True)
    assert (tmp_path / "a.yml").read_text() == "3"


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"files": 3}', '{"files": {}}'])
def test_a_manifest_that_is_not_ours_is_somebody_elses_file(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(WriteRefusedError, match=MANIFEST):
        write_files(tmp_path, {MANIFEST: '{"files": {"x": "y"}}'}, force=False)
    assert (tmp_path / MANIFEST).read_text() == text


def test_an_unusable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteRefusedError, match="choose a writable folder"):
        write_files(tmp_path / "file" / "below", {"a": ""}, force=False)


def brief(kind: str, *actions: Action) -> RecommendationSummary:
    return {
        "id": kind, "kind": kind, "scope": {"kind": "job", "name": "j", "label": "j"}, "severity": "info",
        "summary": kind, "current": 1, "recommended": 0, "unit": "affected GPUs", "diagnosis": "d",
        "confidence": "low", "apply": list(render(actions)), "actions": [serialize.action(each) for each in actions],
        "projection": {"utilization_ratio": None, "memory_ratio": None, "throughput_ratio": None,
                       "cost_change_per_hour": None, "intervals": {}},
        **savings_fields(None),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "shown"),
    [
        ((run_command("kubectl", "cordon", "n1", note="then drain it"),), ["kubectl cordon n1  # then drain it"]),
        ((run_command("ps", *["1234567"] * 30, note="which processes?"),), ["# which processes?", "All steps"]),
        ((run_command("ps", *["1234567"] * 30),), [f"ps {' '.join(['1234567'] * 30)}"]),
        (notes("ask " * 50), [f"# {'ask ' * 50}".rstrip()]),
        (notes(*"abcdefgh"), [f"# {letter}" for letter in "abcdefgh"]),
        (notes(*"abcdefghi"), [*(f"# {letter}" for letter in "abcdefgh"), "and 1 more step", "All steps"]),
    ],
)
def test_a_terminal_shows_the_first_steps_and_no_endless_command(
    monkeypatch: pytest.MonkeyPatch, actions: tuple[Action, ...], shown: list[str]
) -> None:
    answers = FakeAdvisorClient()
    answer = {**answers.what_if({}), "then": [brief("idle_reclaim", *actions)]}
    monkeypatch.setattr(answers, "what_if", lambda _: answer)
    lines = [line.strip() for line in run(monkeypatch, answers).output.splitlines()]
    begin = next(number for number, line in enumerate(lines) if line.startswith("1 -> 0"))
    steps = [line for line in lines[begin + 1 :] if line and not line.startswith("Compared")]
    assert [line.split(",")[0] if line.startswith("All steps") else line for line in steps] == shown
    assert json.loads(run(monkeypatch, answers, "--format", "json").output)["then"][0]["apply"] == list(render(actions))


def test_one_trainer_gets_one_file() -> None:
    answer = FakeAdvisorClient().what_if({})
    answer["then"] = [
        brief("batch_size", configure_trainer("j", per_device_train_batch_size=64)),
        brief("mixed_precision", configure_trainer("j", "no loss scaling", bf16=True), *notes("further: FP8")),
        brief("profiling", run_command("nsys", "profile"), edit_code("model.eval()")),
    ]
    made = change_files(answer, TargetOverrides())
    assert yaml.safe_load(made["trainer-j.yml"]) == {"bf16": True, "per_device_train_batch_size": 64}
    assert SETTINGS not in made
    assert not [name for name in made if name.startswith("replicas-")]
