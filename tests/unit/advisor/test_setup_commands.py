"""init, check-config, doctor, snooze and runbook; help, suggestions and environment variables of all commands."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import click
import pytest
from gpu_advisor.cli import cli
from gpu_advisor.commands import COMMAND_GROUPS, COMMANDS, doctor_findings, long_options, variable_name
from gpu_advisor.commands.doctor_findings import DeviceFile, Finding, Reply
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.settings_file import FoundFleet, settings_yaml
from gpu_advisor.commands.short_ids import MIN_DIGITS, find_by_id, short_ids
from gpu_advisor.documents.runbook_files import runbook_html, runbook_names
from gpu_advisor.settings import load_settings
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import free_port
from tests.unit.advisor.test_commands import Call, RunningAdvisor, call, live
from tests.unit.sources.fake_http import fake_http, reply

__all__ = ["call", "live"]  # fixtures

EXPORTER = """\
gpu_exporter_build_info{version="1"} 1
gpu_exporter_driver_info{driver="nvidia",state="ok"} 1
gpu_exporter_driver_info{driver="amd",state="absent"} 1
gpu_info{uuid="a",index="0",name="NVIDIA H100"} 1
gpu_info{uuid="b",index="1",name="NVIDIA H100"} 1
gpu_up{uuid="a"} 1
gpu_up{uuid="b"} 0
gpu_down_info{uuid="b",reason="lost"} 1
"""


# Every command


def subcommand(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def test_every_command_is_in_one_group_of_the_help(call: Call) -> None:
    _, out, _ = call("--help")
    assert [title for title in COMMAND_GROUPS if f"\n{title}:\n" in out] == list(COMMAND_GROUPS)
    assert sum(len(commands) for commands in COMMAND_GROUPS.values()) == len(COMMANDS)
    for name in COMMANDS:
        assert sum(line.split()[:1] == [name] and line.startswith("  ") for line in out.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_an_environment_variable_of_its_own(name: str) -> None:
    command = subcommand(name)
    parts = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for part in parts:
        options = [option for option in part.params if isinstance(option, click.Option)]
        variables = [option.envvar for option in options if option.name != "help"]
        assert all(variables)
        assert len(set(map(str, variables))) == len(variables)
        for option, long in long_options(part):
            assert str(option.envvar).endswith(variable_name(long)) or option.envvar


def test_an_environment_variable_sets_an_option_and_an_argument_wins(
    call: Call, live: RunningAdvisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_ADVISOR_RECOMMEND_ADVISOR", live.web.url)
    monkeypatch.setenv("GPU_ADVISOR_RECOMMEND_FORMAT", "json")
    assert len(json.loads(call("recommend")[1])["recommendations"]) == 2
    assert "Release 1 of 2" in call("recommend", "--format", "table")[1]
    monkeypatch.setenv("GPU_ADVISOR_RECOMMEND_FORMAT", "xml")
    assert call("recommend")[0] == 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["recomend"], "Did you mean 'recommend'?"), (["dokter"], "Did you mean 'doctor'?"),
        (["zzz"], "`gpu-advisor --help` lists them"), (["watch", "--intervall", "3"], "--interval"),
        (["runbook", "GpuDwn"], "did you mean GpuDown?"),
    ],
)  # fmt: skip
def test_a_typing_error_gets_a_suggestion(call: Call, words: list[str], hint: str) -> None:
    code, _, err = call(*words)
    assert code != 0
    assert hint in err


# init and check-config


@pytest.mark.parametrize(
    "found",
    [
        FoundFleet(
            prometheus="http://p:9090/x", gpus_by_model={"NVIDIA H100 80GB HBM3": 8, "NVIDIA GeForce GTX 1080 Ti": 1}
        ),
        FoundFleet(exporters=["127.0.0.1:9816", "node-2:9816"]),
    ],
)
def test_the_written_file_is_valid_also_with_all_its_comments(found: FoundFleet, tmp_path: Path) -> None:
    text = settings_yaml(found)
    file = tmp_path / "a.yml"
    file.write_text(text)
    settings = load_settings(file)
    assert (settings.source.prometheus is not None) == bool(found.prometheus)
    lines = [line for line in text.splitlines() if not line.startswith(("# Settings", "#   gpu-advisor", "# What a GPU",
             "# Pools of", "# Teams,"))]  # fmt: skip
    file.write_text("\n".join(line.removeprefix("# ") for line in lines))
    settings = load_settings(file)
    assert [pool.name for pool in settings.pools] == ["inference"]
    assert settings.teams
    assert settings.alertmanagers
    assert set(found.gpus_by_model or {"NVIDIA H100 80GB HBM3": 1}) == set(settings.cost.gpu_price_per_hour)


def test_init_writes_what_it_finds_and_check_config_says_it_again(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "advisor.yml"
    with fake_http(reply(200, EXPORTER, "text/plain")) as exporter:
        code, out, _ = call("init", "--exporter", exporter.url, "--output", str(file))
    assert (code, "2 x NVIDIA H100" in out) == (0, True)
    code, out, _ = call("check-config", str(file))
    assert (code, f"scraping {exporter.address}" in out) == (0, True)
    assert call("init", "--exporter", exporter.url, "--output", str(file))[2].count("--force") == 1
    file.write_text(file.read_text() + "\npols: []\n")
    code, out, err = call("check-config", str(file))
    assert (code, out) == (2, "")
    assert f"{file}:" in err
    assert "did you mean pools?" in err
    code, _, err = call("init", "--prometheus", f"http://127.0.0.1:{free_port()}", "--output", str(tmp_path / "b.yml"))
    assert (code, "check the URL" in err, (tmp_path / "b.yml").exists()) == (1, True, False)


@pytest.mark.parametrize(
    ("key", "name"),
    [("source.mappings_dir", "own/x.yaml"), ("cost.catalogue", "own.yaml"), ("allocation.inventory_file", "own.yaml")],
)
def test_check_config_reads_the_files_that_settings_name(call: Call, tmp_path: Path, key: str, name: str) -> None:
    section, _, field = key.partition(".")
    target = tmp_path / name.partition("/")[0]
    file = tmp_path / "advisor.yml"
    file.write_text(f"{section}: {{{field}: {target}}}\n")
    code, out, _ = call("check-config", str(file))
    assert (code, f"not checked   {key}: {target} is not on this machine" in out) == (0, True)
    wrong = tmp_path / name
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_text("a: 1\na: 2\n")
    code, out, err = call("check-config", str(file))
    assert (code, out) == (2, "")
    assert f"{key}: {wrong}:2: a: duplicate key" in err


# doctor


@pytest.mark.parametrize(
    ("found", "status", "fix"),
    [
        (doctor_findings.devices([]), "warning", "install the driver"),
        (doctor_findings.devices([DeviceFile("/dev/nvidia0", False)]), "failed", "group"),
        (doctor_findings.devices([DeviceFile("/dev/nvidia0", True)]), "ok", ""),
        (doctor_findings.prometheus("http://p", Reply(None, error="ConnectionError")), "failed", "check the URL"),
        (doctor_findings.prometheus("http://p", Reply(503)), "failed", "check the URL"),
        (doctor_findings.targets(Reply(200, {"data": {"result": []}})), "failed", "scrape_configs"),
        (doctor_findings.targets(Reply(200, "?")), "failed", "scrape_configs"),
        (doctor_findings.targets(
            Reply(200, {"data": {"result": [{"metric": {"__name__": "gpu_info"}, "value": [1, "8"]}]}})), "ok", ""),
        (doctor_findings.rules({"gpu:up:last"}), "ok", ""),
        (doctor_findings.rules({"other"}), "warning", "gpu-advisor rules"),
        (doctor_findings.prometheus("http://p", Reply(401)), "failed", "needs a login"),
        (doctor_findings.prometheus("https://p", Reply(None, error="SSLError")), "failed", "--ca-file"),
        (doctor_findings.server("Grafana", "", Reply(None), "--grafana", "database"), "skipped", ""),
        (doctor_findings.server("Grafana", "http://g", Reply(200, {"database": "ok"}), "--grafana", "database"),
         "ok", ""),
        (doctor_findings.server("Grafana", "http://g", Reply(200, {"a": 1}), "--grafana", "database"),
         "failed", "port"),
        (doctor_findings.server("Grafana", "http://g", Reply(200), "--grafana", "database"), "failed", "port"),
        (doctor_findings.server("Grafana", "http://g", Reply(502), "--grafana", "database"), "failed", "path prefix"),
    ],
)  # fmt: skip
def test_each_finding_has_a_status_and_each_problem_a_fix(found: Finding, status: str, fix: str) -> None:
    assert found.status == status
    assert fix in found.fix
    assert bool(found.fix) == (status in ("warning", "failed"))


@pytest.mark.parametrize("state", ["no_permission", "failed", "hung", "released", "something_new"])
def test_a_driver_that_does_not_work_is_one_failure_with_its_fix(state: str) -> None:
    found = list(doctor_findings.exporter("http://n:9816", Reply(200), {"nvidia": state, "amd": "absent"}, 0))
    assert [(each.part, each.status) for each in found] == [("exporter", "ok"), ("nvidia driver", "failed")]
    assert found[1].fix


def test_doctor_examines_what_it_is_given(call: Call) -> None:
    def prometheus(handler: BaseHTTPRequestHandler, number: int) -> None:
        result = [{"metric": {"__name__": "gpu_info"}, "value": [0, "2"]}] if "count" in handler.path else []
        rules = {"groups": [{"rules": [{"name": "gpu:up:last"}]}]}
        data = rules if handler.path.endswith("/rules") else {"result": result}
        grafana = {"database": "ok"} if handler.path == "/api/health" else {}
        reply(200, json.dumps({"status": "success", "data": data, **grafana}))(handler, number)

    with fake_http(reply(200, EXPORTER, "text/plain")) as exporter, fake_http(prometheus) as server:
        arguments = ["--exporter", exporter.url, "--prometheus", server.url, "--grafana", server.url]
        code, out, _ = call("doctor", *arguments, "--format", "json")
    found = {each["part"]: each["status"] for each in json.loads(out)}
    assert code == 1
    assert found == {"exporter": "ok", "GPUs": "ok", "GPU 1": "failed", "Prometheus": "ok", "scrape targets": "ok",
                     "recording rules": "ok", "Alertmanager": "skipped", "Grafana": "ok"}  # fmt: skip
    code, out, _ = call("doctor", "--prometheus", f"127.0.0.1:{free_port()}")
    assert (code, "FAILED   Prometheus" in out, "scrape targets" in out) == (1, True, False)


# snooze and runbook


def test_snooze_by_the_first_digits(call: Call, live: RunningAdvisor) -> None:
    issued = live.running.service.view.issued[0]
    arguments = ["snooze", issued.id[:MIN_DIGITS], "--advisor", live.web.url]
    assert call(*arguments)[0] == 2  # without a reason
    assert call(*arguments, "--reason", "fans", "--for", "3 days")[0] == 2
    assert call("snooze", "zz", "--advisor", live.web.url, "--reason", "fans")[0] == 1
    assert call("snooze", "", "--advisor", live.web.url, "--reason", "fans")[0] == 1
    code, out, err = call(*arguments, "--reason", "fans come", "--for", "52w")
    assert (code, "Snoozed until" in out) == (0, True), err
    snoozed = {each.id: each.snoozed for each in live.running.service.view.issued if each.snoozed}
    assert [each.reason for each in snoozed.values()] == ["fans come"]
    assert call(*arguments, "--end")[0] == 0
    assert not any(each.snoozed for each in live.running.service.view.issued)


def test_runbooks(call: Call, live: RunningAdvisor) -> None:
    code, out, _ = call("runbook")
    assert (code, out.split()) == (0, list(runbook_names()))
    _, by_name, _ = call("runbook", "GpuAdvisorIdleReclaim")
    assert by_name.startswith("# GpuAdvisorIdleReclaim")
    assert call("runbook", "idle_reclaim")[1] == by_name
    idle = next(each for each in live.running.service.view.issued if each.recommendation.kind == "idle_reclaim")
    assert call("runbook", idle.id[:8], "--advisor", live.web.url)[1] == by_name
    assert all("<h1>" in str(runbook_html(name)) for name in runbook_names())


@given(st.sets(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=30))
def test_a_short_id_is_the_beginning_of_one(ids: set[str]) -> None:
    found = short_ids(ids)
    assert set(found) == ids
    for id_, short in found.items():
        assert len(short) >= MIN_DIGITS
        assert [other for other in ids if other.startswith(short)] == [id_]


def test_an_ambiguous_beginning_is_refused() -> None:
    both: Any = [{"id": "abc1"}, {"id": "abc2"}]
    with pytest.raises(CommandError, match="give more of it"):
        find_by_id(both, "abc")
    assert find_by_id(both, "abc2")["id"] == "abc2"
