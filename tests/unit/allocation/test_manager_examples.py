"""examples/allocation as users start them, against a real service and an emulated Kubernetes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from gpu_advisor.allocation.frameworks import pytorch, tensorflow

from tests.own_processes import Program, up
from tests.polling import wait_until
from tests.servers import free_port

FOLDER = Path(__file__).parents[3] / "examples" / "allocation"
FLEET = "2xA100-80GB:idle,1xT4-16GB:idle"
RANK = """
import sys, os
import torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()  # gloo fails in a rank whose peer ends while it connects
with open(f"{sys.argv[1]}/{dist.get_rank()}", "w") as file:
    file.write(f"{dist.get_world_size()} {os.environ['CUDA_VISIBLE_DEVICES'].count('GPU-')}")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("service")
    with up(folder, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", FLEET) as program:
        wait_until(lambda: _free(program) == 3, "GPUs", program)
        yield program


def _free(program: Program) -> int | None:
    answer = requests.get(f"{program.url}/api/v1/gpu/status", timeout=60)
    return sum(each["available_gpus"] for each in answer.json()["available_nodes"]) if answer.ok else None


def clean(**variables: str) -> dict[str, str]:
    unwanted = ("VISIBLE_DEVICES", "ALLOC_CONF", "GPU_ADVISOR")
    return {key: value for key, value in os.environ.items() if not any(word in key for word in unwanted)} | variables


def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=clean(**variables))


def test_training_on_the_cpu_where_that_is_asked_for(service):
    done = run("train.py", "--gpu", "H100", "--cpu-fallback", "--advisor", service.url, "--steps", "40")
    assert done.returncode == 0, done.stderr
    assert "training on the CPU: cpu, torch.bfloat16" in done.stdout
    assert "loss: 0." in done.stdout
    assert "falling back to the CPU" in done.stderr
    assert _free(service) == 3


def test_a_gpu_that_is_not_there_for_pytorch_is_given_back(service):
    """The simulated fleet leases it, and this machine does not have it."""
    done = run("train.py", "--gpu", "A100", "--advisor", service.url)
    assert done.returncode == 1
    assert "PyTorch" in done.stderr
    assert "Traceback" not in done.stderr
    assert _free(service) == 3


def test_no_gpu_and_no_cpu_fallback(service):
    done = run("train.py", "--gpu", "H100", "--advisor", service.url)
    assert done.returncode == 1
    assert "H100" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_is_started_on_what_is_leased(service, tmp_path):
    (tmp_path / "ranks.py").write_text(RANK)
    arguments = ("--gpus", "2xA100-80GB", "--advisor", service.url, str(tmp_path / "ranks.py"), str(tmp_path))
    done = run("launch.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert {rank: (tmp_path / rank).read_text() for rank in ("0", "1")} == {"0": "2 2", "1": "2 2"}
    assert _free(service) == 3
    failing = tmp_path / "fails.py"
    failing.write_text("raise SystemExit(7)")
    done = run("launch.py", "--gpus", "A100", "--advisor", service.url, str(failing))
    assert done.returncode == 7
    assert _free(service) == 3


def test_a_setup_that_the_service_answers_is_one_that_can_be_applied(service):
    body: dict[str, Any] = {"gpu_count": 2, "gpu_type": "A100-80GB", "memory_strategy": "dynamic"}
    url = f"{service.url}/api/v1/gpu/setup"
    for name, from_document in (
        ("pytorch", pytorch.pytorch_from_document),
        ("tensorflow", tensorflow.tensorflow_from_document),
    ):
        answer = requests.post(f"{url}-{name}", json={**body, "model_parameters": 1e9}, timeout=60)
        settings: Any = from_document(answer.json())
        assert answer.json() == settings.document()
        refused = requests.post(f"{url}-{name}", json=body, timeout=60)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/model_parameters"
    assert _free(service) == 3


def test_the_program_of_the_page_runs(service):
    page = (FOLDER.parents[1] / "docs" / "frameworks.md").read_text()
    program, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=180,
        env=clean(GPU_ADVISOR_URL=service.url),
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) >= 0


@pytest.mark.parametrize("name", ["train.py", "launch.py", "submit.py"])
def test_help_teaches(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"python examples/allocation/{name}" in done.stdout


# Kubernetes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """The emulated server, and a kubeconfig that leads to it."""
    pytest.importorskip("kmock", reason="needs Python 3.11: pip install kmock")
    from tests.unit.allocation.kubernetes_emulator import kubernetes_emulator, node

    with kubernetes_emulator() as (handler, reached):
        handler["get /api/v1/nodes"] << {"metadata": {}, "items": [node("a", 8)]}
        cluster = {"name": "c", "cluster": {"server": reached.api.configuration.host}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [cluster],
                  "contexts": [context], "users": [{"name": "u", "user": {}}]}  # fmt: skip
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        yield handler, str(tmp_path / "kubeconfig")


def test_a_job_is_submitted_followed_and_deleted_with_the_rights_of_the_example(cluster):
    handler, kubeconfig = cluster
    job = ("--gpus", "2xA100-80GB", "--namespace", "team", "--token", "t", str(FOLDER / "job.yaml"))
    done = run("submit.py", *job, "--follow", "1", KUBECONFIG=kubeconfig)
    assert done.returncode == 0, done.stderr
    assert "team/train-" in done.stdout
    assert "submitted" in done.stdout
    assert "waiting" in done.stdout
    done = run("submit.py", *job, KUBECONFIG=kubeconfig)
    assert "already exists" in done.stdout
    for expected in ("deleted", "not found"):
        done = run("submit.py", *job, "--release", KUBECONFIG=kubeconfig)
        assert done.stdout.strip() == expected, done.stderr
    verbs = {"FETCH": "get", "LIST": "list", "WATCH": "watch", "CREATE": "create", "DELETE": "delete"}
    done_there = {(each.resource.plural, verbs[each.action.name]) for each in handler}
    rules = [rule for each in documents("rbac.yaml") for rule in each.get("rules", ())]
    allowed = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert done_there == allowed  # no more and no less


def test_the_patch_alone_is_yaml(cluster):
    _, kubeconfig = cluster
    done = run("submit.py", "--gpus", "2xA100-80GB", "--patch", "--container", "train", KUBECONFIG=kubeconfig)
    assert done.returncode == 0, done.stderr
    page = (FOLDER.parents[1] / "docs" / "kubernetes-allocation.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert yaml.safe_load(done.stdout) == yaml.safe_load(shown)
    done = run("submit.py", "--gpus", "2xH100", "--patch", KUBECONFIG=kubeconfig)
    assert done.returncode == 1
    assert "its GPUs are A100" in done.stderr


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("version", ["1.33", "1.35"])
@pytest.mark.parametrize("name", ["job.yaml", "rbac.yaml"])
def test_manifests_are_valid(name, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for each in documents(name):
        kubernetes_validate.validate(each, version, strict=True)
