"""The one-shot commands, against a real server, a source of the tests' own, and an API server that knows scales."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from gpu_advisor import settings as settings_module
from gpu_advisor.cli import main
from gpu_advisor.commands import COMMANDS, LazyGroup, one_shot
from gpu_advisor.commands.advisor_client import HttpAdvisor
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.settings import Settings
from gpu_advisor.web.api import query_parameters
from gpu_advisor.web.server import WebServer

from tests.servers import free_port
from tests.unit.advisor.builders import AT, ExporterTarget, FakeClock, FakeSource, GpuSpec, ServiceHarness, source_error
from tests.unit.sources.fake_http import fake_http, reply

CHOSEN = Settings.model_validate(
    {
        "pools": [
            {"name": "chat", "kind": "serving", "match": {"node": "s"}, "gpu": {"min": 1, "max": 8}},
            {"name": "mail", "kind": "serving", "match": {"node": "t"}, "gpu": {"min": 1, "max": 8}},
        ]
    }
)


def serving(node: str, count: int, utilization: float) -> list[GpuSpec]:
    """A pool that has been at this utilization for as long as anybody looks back."""
    points = tuple((AT - 60 * step, utilization) for step in reversed(range(200)))
    return [GpuSpec(f"GPU-{node}{n}", utilization, node=node, trail=points) for n in range(count)]


IDLE = [GpuSpec("GPU-0", 0.0), GpuSpec("GPU-1", 0.7, index="1")]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `gpu-advisor` with arguments: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["gpu-advisor", *arguments])
        code = main()
        reported = capsys.readouterr()
        return code, reported.out, reported.err

    return run


class RunningAdvisor:
    """An advisor that runs, on a fleet under the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.source = FakeSource(
            [ExporterTarget("a:1", [*serving("s", 2, 0.95), *serving("t", 2, 0.7), *IDLE])], CHOSEN
        )
        self.running = ServiceHarness(folder, self.source, FakeClock(), CHOSEN).after(0)
        self.web = WebServer(self.running.service, f"127.0.0.1:{free_port()}")
        self.web.start()

    def close(self) -> None:
        self.web.stop()
        self.running.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RunningAdvisor]:
    made = RunningAdvisor(tmp_path)
    yield made
    made.close()


def test_recommend(call: Call, live: RunningAdvisor) -> None:
    code, out, _ = call("recommend", "--advisor", live.web.url)
    assert code == 0
    assert "Release 1 of 2 GPUs" in out
    assert "chat" in out
    code, out, _ = call("recommend", "--advisor", live.web.url, "--exit-code", "--format", "json")
    found = json.loads(out)["recommendations"]
    assert (code, len(found)) == (3, 2)
    assert call("recommend", "--advisor", live.web.url, "--exit-code", "--kind", "cooling")[0] == 0
    code, out, _ = call("recommend", "--advisor", live.web.url, "--format", "csv", "--pool", "NVIDIA H100")
    header, row = csv.reader(io.StringIO(out))
    assert dict(zip(header, row, strict=True))["kind"] == "idle_reclaim"
    code, out, _ = call("recommend", "--advisor", live.web.url, found[0]["id"])
    assert all(evidence["promql"] in out for evidence in found[0]["evidence"])
    assert call("recommend", "--advisor", live.web.url, "fff0")[0] == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_the_help_of_each(name: str) -> None:
    found = LazyGroup().get_command(click.Context(click.Command("gpu-advisor")), name)
    assert found is not None
    assert COMMANDS[name].about == found.get_short_help_str(200)


def test_all_pages_are_read(call: Call, live: RunningAdvisor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(call("check", "--gpus", "--advisor", live.web.url, "--format", "json")[1])["checks"]
    monkeypatch.setattr(query_parameters, "MAX_PER_PAGE", 3)
    assert json.loads(call("check", "--gpus", "--advisor", live.web.url, "--format", "json")[1])["checks"] == whole
    assert len(whole) > 9


def test_check(call: Call, live: RunningAdvisor) -> None:
    code, out, _ = call("check", "--advisor", live.web.url)
    assert (code, "pool chat" in out, "GPU-0" in out) == (0, True, False)
    code, out, _ = call("check", "--advisor", live.web.url, "--gpus", "--format", "csv", "--status", "missed")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["status"] for row in rows} == {"missed"}
    assert "gpu" in {row["scope_kind"] for row in rows}
    assert call("check", "--advisor", live.web.url, "--exit-code")[0] == 3
    assert call("check", "--advisor", live.web.url, "--exit-code", "--status", "met")[0] == 0


@pytest.mark.parametrize(
    ("command", "option", "value", "hint"),
    [
        ("recommend", "pool", "chatt", "did you mean chat?"),
        ("recommend", "kind", "idle_reclaims", "did you mean idle_reclaim?"),
        ("recommend", "node", "zzz", "there are node-a, s, t"),
        ("check", "item", "gpu_utilisation", "did you mean gpu_utilization?"),
    ],
)
def test_a_wrong_name_is_an_error_not_an_empty_answer(
    call: Call, live: RunningAdvisor, command: str, option: str, value: str, hint: str
) -> None:
    code, printed, error = call(command, "--advisor", live.web.url, f"--{option}", value)
    assert (code, printed) == (1, "")
    assert f"--{option} '{value}'" in error
    assert hint in error


def test_a_right_name_with_nothing_to_do_is_no_error(call: Call, live: RunningAdvisor) -> None:
    code, printed, _ = call("recommend", "--advisor", live.web.url, "--kind", "cooling")
    assert (code, "No recommendations." in printed) == (0, True)


def test_a_stale_answer_is_reported_and_is_not_all_right(call: Call, live: RunningAdvisor) -> None:
    live.source.failure = source_error()
    live.running.after(15)
    code, out, err = call("recommend", "--advisor", live.web.url)
    assert (code, "no connection" in err, "Release" in out) == (0, True, True)
    assert call("recommend", "--advisor", live.web.url, "--exit-code", "--kind", "nothing")[0] == 1
    code, _, err = call("autoscale", "--advisor", live.web.url)
    assert (code, "no connection" in err) == (1, True)


@pytest.mark.parametrize("command", ["recommend", "check", "autoscale"])
def test_nobody_there_and_somebody_else_there(call: Call, command: str) -> None:
    code, _, err = call(command, "--advisor", f"http://127.0.0.1:{free_port()}")
    assert (code, "--prometheus URL" in err) == (1, True)
    with fake_http(reply(200, "<html>", "text/html")) as other:
        code, _, err = call(command, "--advisor", other.url)
        assert (code, "check that the URL" in err) == (1, True)
    with fake_http(reply(200, "[]")) as other:
        assert call(command, "--advisor", other.url)[0] == 1
    with fake_http(reply(401, "{}")) as other:
        code, _, err = call(command, "--advisor", other.url)
        assert (code, "--token-file" in err) == (1, True)


def paged(evaluations: Iterator[str]) -> Callable[[Any, int], None]:
    """An advisor with two pages of checks: a page is of the next of these evaluations."""

    def answer(handler: Any, number: int) -> None:
        page, at = (2 if "page=2" in handler.path else 1), next(evaluations)
        document = {"at": at, "stale": False, "source": {"message": ""}, "total": 2, "checks": [f"{at}/{page}"]}
        link = {"Link": '</checks?page=2>; rel="next"'} if page == 1 else {}
        reply(200, json.dumps(document), **link)(handler, number)

    return answer


def test_pages_are_of_one_evaluation() -> None:
    with fake_http(paged(iter("abbbcd"))) as advisor:  # the second page is of another evaluation, then of the same
        found = HttpAdvisor(advisor.url, "", None).checks({})
        assert (found["at"], [str(each) for each in found["checks"]]) == ("b", ["b/1", "b/2"])
        assert len(advisor.requests) == 4
    with fake_http(paged(map(str, itertools.count()))) as advisor:
        with pytest.raises(CommandError, match=r"2 pages of checks.*5 times.*evaluation\.interval_seconds"):
            HttpAdvisor(advisor.url, "", None).checks({})
        assert len(advisor.requests) == 10


def test_a_token_goes_to_the_advisor_and_nowhere_else(call: Call, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    body: dict[str, Any] = {"at": None, "stale": False, "source": {"message": "wait"}, "recommendations": []}
    body["abstentions"] = []
    with fake_http(reply(200, json.dumps(body))) as elsewhere:
        link = f'<{elsewhere.url}/recommendations?page=2>; rel="next"'
        with fake_http(
            lambda handler, n: reply(200, json.dumps(body), Link=link if n == 0 else "")(handler, n)
        ) as there:
            call("recommend", "--advisor", there.url, "--token-file", str(tmp_path / "token"))
            assert [request.headers["Authorization"] for request in there.requests] == ["Bearer t0ken"] * 2
        assert elsewhere.requests == []


@pytest.mark.parametrize("arguments", [["--advisor", "http://a", "--prometheus", "http://b"], ["--prometheus", "b"]])
def test_contradictions_are_usage_errors(call: Call, arguments: list[str]) -> None:
    assert call("recommend", *arguments)[0] == 2


def test_one_evaluation_prints_what_a_running_advisor_does(
    call: Call, live: RunningAdvisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_shot, "one_shot_source", lambda settings: live.source)
    monkeypatch.setattr(settings_module, "Settings", lambda: CHOSEN)
    monkeypatch.setattr("time.time", lambda: AT)
    for arguments in (["recommend"], ["check", "--gpus"], ["autoscale"], ["recommend", "--pool", "chat"]):
        once = json.loads(call(*arguments, "--prometheus", "http://p", "--format", "json")[1])
        running = json.loads(call(*arguments, "--advisor", live.web.url, "--format", "json")[1])
        assert once == {**running, **({"per_page": once["per_page"]} if "per_page" in once else {})}
    assert call("recommend", "--prometheus", "http://p", "--exit-code")[0] == 3
    live.source.failure = source_error()
    code, _, err = call("recommend", "--prometheus", "http://p")
    assert (code, "no connection" in err) == (1, True)


def test_settings_with_an_embedded_source_are_for_a_running_advisor(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("cluster: c\n")
    code, _, err = call("recommend", "--config", str(path))
    assert (code, "--advisor URL" in err) == (2, True)


# autoscale


def pools(call: Call, live: RunningAdvisor, *arguments: str) -> dict[str, dict[str, Any]]:
    out = call("autoscale", "--advisor", live.web.url, "--format", "json", *arguments)[1]
    return {each["pool"]: each for each in json.loads(out)["pools"]}


def test_autoscale_says_what_to_do(call: Call, live: RunningAdvisor) -> None:
    found = pools(call, live)
    assert set(found) == {"chat", "mail"}
    assert (found["chat"]["replicas"], found["chat"]["action"]) == (2, "grow")
    assert found["chat"]["desired"] > 2
    assert (found["mail"]["desired"], found["mail"]["action"]) == (2, "none")
    assert pools(call, live, "--pool", "chat", "--max-gpus", "2")["chat"]["desired"] in (2, None)
    assert call("autoscale", "--advisor", live.web.url, "--exit-code")[0] == 3
    assert call("autoscale", "--advisor", live.web.url, "--exit-code", "--pool", "mail")[0] == 0
    assert call("autoscale", "--advisor", live.web.url, "--min-gpus", "9", "--max-gpus", "1")[0] == 1
    code, _, err = call("autoscale", "--advisor", live.web.url, "--pool", "chit")
    assert (code, "did you mean chat?" in err) == (1, True)


def test_a_pool_with_insufficient_data_is_not_a_number(call: Call, live: RunningAdvisor) -> None:
    cards = live.source.targets[0].cards
    live.source.targets[0].cards = [dataclasses.replace(card, utilization=None, trail=()) for card in cards]
    live.running.after(15)
    found = pools(call, live)
    assert [each["desired"] for each in found.values()] == [None, None]
    assert all(each["why"] for each in found.values())
    assert call("autoscale", "--advisor", live.web.url, "--exit-code")[0] == 4


@dataclasses.dataclass
class FakeScaleApi:
    """The scales of workloads as an API server has them; `version` counts changes."""

    replicas: int = 2
    version: int = 7
    status: int = 200
    changed_by_other: bool = False  # somebody changes the workload between reading and setting
    requests: list[tuple[str, str, Any]] = dataclasses.field(default_factory=list)


@contextmanager
def serve_scale_api(cluster: FakeScaleApi, folder: Path) -> Iterator[Path]:
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/, scale only."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            cluster.requests.append((self.command, self.path, body))
            status = cluster.status
            if self.path != "/apis/apps/v1/namespaces/serving/deployments/chat/scale":
                status = 404
            elif self.command == "PATCH" and status == 200:
                if cluster.changed_by_other or body["metadata"]["resourceVersion"] != str(cluster.version):
                    status = 409
                else:
                    cluster.replicas, cluster.version = body["spec"]["replicas"], cluster.version + 1
            found: dict[str, Any] = {
                "apiVersion": "autoscaling/v1",
                "kind": "Scale",
                "metadata": {"name": "chat", "namespace": "serving", "resourceVersion": str(cluster.version)},
                "spec": {"replicas": cluster.replicas},
                "status": {"replicas": cluster.replicas},
            }
            if status != 200:
                found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_PUT = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
                "users": [{"name": "test", "user": {"token": "t"}}],
            }
        )
    )
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScaleApi]:
    made = FakeScaleApi()
    with serve_scale_api(made, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield made


APPLY = ("--pool", "chat", "--apply", "--workload", "deployment/chat", "-n", "serving")


def apply(call: Call, live: RunningAdvisor, *arguments: str) -> tuple[int, str, str]:
    return call("autoscale", "--advisor", live.web.url, *(arguments or APPLY))


def test_apply_sets_what_is_desired_once(call: Call, live: RunningAdvisor, cluster: FakeScaleApi) -> None:
    desired = pools(call, live)["chat"]["desired"]
    assert cluster.requests == []  # saying it touches nothing
    code, out, _ = apply(call, live)
    assert (code, cluster.replicas, f"from 2 to {desired}" in out) == (0, desired, True)
    code, out, _ = apply(call, live)
    assert (code, [verb for verb, _, _ in cluster.requests]) == (0, ["GET", "PATCH", "GET"])
    assert "already" in out


def test_apply_refuses_what_is_simulated_stale_or_unknown(
    call: Call, live: RunningAdvisor, cluster: FakeScaleApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = live.running.service
    evaluation = service.view.evaluation
    assert evaluation is not None
    simulated = dataclasses.replace(evaluation, facts=dataclasses.replace(evaluation.facts, simulated=True))
    service.view = dataclasses.replace(service.view, evaluation=simulated)
    code, _, err = apply(call, live)
    assert (code, "simulated" in err) == (1, True)
    live.running.after(15)
    live.source.failure = source_error()
    live.running.after(15)
    code, _, err = apply(call, live)
    assert (code, "stale" in err) == (1, True)
    live.source.failure = None
    cards = live.source.targets[0].cards
    live.source.targets[0].cards = [dataclasses.replace(card, utilization=None, trail=()) for card in cards]
    live.running.after(15)
    assert apply(call, live)[0] == 4
    assert cluster.requests == []


def test_apply_does_not_shrink_what_is_set_to_another_number(
    call: Call, live: RunningAdvisor, cluster: FakeScaleApi
) -> None:
    cards = live.source.targets[0].cards
    live.source.targets[0].cards = [*serving("s", 4, 0.05), *(card for card in cards if card.node != "s")]
    live.running.after(0)
    cluster.replicas = 6
    assert pools(call, live)["chat"]["action"] == "shrink"
    code, _, err = apply(call, live)
    assert (code, cluster.replicas, "selectors" in err) == (4, 6, True)
    cluster.replicas = 4
    code, _, _ = apply(call, live)
    assert (code, cluster.replicas) == (0, pools(call, live)["chat"]["desired"])


@pytest.mark.parametrize(
    ("status", "words"), [(401, "credentials"), (403, "deployments/scale"), (404, "no such"), (500, "500")]
)
def test_what_the_api_server_refuses_is_reported_with_the_fix(
    call: Call, live: RunningAdvisor, cluster: FakeScaleApi, status: int, words: str
) -> None:
    cluster.status = status
    code, _, err = apply(call, live)
    assert (code, words in err) == (1, True)
    assert "Traceback" not in err


def test_somebody_else_changed_it_at_the_same_moment(call: Call, live: RunningAdvisor, cluster: FakeScaleApi) -> None:
    cluster.changed_by_other = True
    code, _, err = apply(call, live)
    assert (code, cluster.replicas, "changed concurrently" in err) == (1, 2, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--apply",), 2),
        (("--workload", "deployment/chat"), 2),
        (("--apply", "--workload", "deployment/chat"), 2),  # which pool?
        (("--pool", "chat", "--apply", "--workload", "chat"), 1),
        (("--pool", "chat", "--apply", "--workload", "job/chat"), 1),
        (("--pool", "chat", "--apply", "--workload", "deployment/chat", "--context", "no-such"), 1),
    ],
)
def test_apply_wrongly_called(
    call: Call, live: RunningAdvisor, cluster: FakeScaleApi, arguments: tuple[str, ...], code: int
) -> None:
    found, _, err = apply(call, live, *arguments)
    assert (found, "Traceback" in err) == (code, False)
    assert cluster.requests == []
