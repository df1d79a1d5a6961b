"""The manager of a training job, at both of its ends: a real service, and this process' own placement and leases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_advisor.allocation.client import session as client_session
from gpu_advisor.allocation.client.backends import GrantedLease, error_from_problem
from gpu_advisor.allocation.client.config import candidate_bodies
from gpu_advisor.allocation.errors import (
    AllocationError,
    InsufficientCapacityError,
    InvalidRequestError,
    LeaseStoreError,
    TokenConflictError,
    UnknownAllocationError,
    UnsatisfiableRequestError,
)
from gpu_advisor.allocation.frameworks import SetupError
from gpu_advisor.allocation.manager import (
    GPUResourceManager,
    LeaseLostError,
    LoginRequiredError,
    ServiceUnavailableError,
    Session,
    TrainingGPUConfig,
    allocate_gpu_resources,
    cleanup_gpu_resources,
    get_available_gpu_nodes,
    get_gpu_monitoring_data,
    get_gpu_resource_manager,
    gpu_resources,
    train_with_gpu_resources,
    validate_gpu_requirements,
)

from tests.own_processes import Program, advisor
from tests.polling import wait_until
from tests.servers import free_port

MACHINES = """
nodes:
  - {name: big, address: 10.0.0.1, gpus: [{type: A100-80GB, count: 2}]}
  - {name: middle, gpus: [{type: A100-40GB, count: 2}]}
  - {name: small, gpus: [{type: T4, count: 1}]}
"""
BIG = TrainingGPUConfig(gpu_count=2, gpu_type="A100-80GB", mixed_precision=True)


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "machines.yml").write_text(MACHINES)
    return {
        "source": {"embedded": {"targets": []}},
        "allocation": {"inventory_file": str(folder / "machines.yml"), "database": str(folder / "leases.db"), **more},
    }


def remote(program: Program, **more: Any) -> GPUResourceManager:
    manager = get_gpu_resource_manager(program.url, **more)
    wait_until(lambda: _is_reachable(manager), "machines are known", program)
    return manager


def _is_reachable(manager: GPUResourceManager) -> bool:
    try:
        return bool(manager.nodes())
    except ServiceUnavailableError:
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("service")
    with advisor(folder, f"127.0.0.1:{free_port()}", settings(folder)) as program:
        yield program


@pytest.fixture(params=["local", "remote"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GPUResourceManager]:
    if request.param == "remote":
        yield remote(request.getfixturevalue("service"))
        return
    (tmp_path / "machines.yml").write_text(MACHINES)
    made = get_gpu_resource_manager(inventory_file=tmp_path / "machines.yml", database=tmp_path / "leases.db")
    yield made
    made.close()


def free(manager: GPUResourceManager) -> dict[str, int]:
    return {each["node_name"]: each["available_gpus"] for each in get_available_gpu_nodes(manager=manager)}


ALL_FREE = {"big": 2, "middle": 2, "small": 1}


def test_both_ends_answer_alike(manager):
    assert free(manager) == ALL_FREE
    assert [each["memory_per_gpu"] for each in get_available_gpu_nodes("A100", 60, manager)] == [80]
    reported = validate_gpu_requirements(BIG, manager)
    assert (reported["valid"], reported["available_now"]) == (True, True)
    reported = validate_gpu_requirements(TrainingGPUConfig(gpu_type="H100"), manager)
    assert (reported["valid"], reported["field"]) == (False, "gpu_type")
    assert get_gpu_monitoring_data(manager)["available_gpus"] == 5
    assert manager.backend.status()["total_nodes"] == 3


def test_allocate_train_release(manager):
    with gpu_resources(BIG, manager) as session:
        assert free(manager) == {"middle": 2, "small": 1}
        assert session.allocation.node_names == ("big",)
        assert session.allocation.memory_per_gpu == 80
        assert session.pytorch().nodes[0].command == "torchrun --standalone --nproc-per-node=2 train.py"
        assert session.pytorch().mixed_precision.dtype == "bfloat16"
        assert session.tensorflow().strategy == "MirroredStrategy"
        assert {"CUDA_VISIBLE_DEVICES", "GPU_ADVISOR_PYTORCH"} <= session.environment().keys()
        session.check()
    assert free(manager) == ALL_FREE
    session = allocate_gpu_resources(BIG, manager)
    cleanup_gpu_resources(session)
    cleanup_gpu_resources(session)  # again is no error
    assert free(manager) == ALL_FREE


def test_gpus_are_given_back_when_training_fails(manager):
    with pytest.raises(ZeroDivisionError), gpu_resources(BIG, manager):
        _ = 1 / 0
    assert free(manager) == ALL_FREE


def test_an_impossible_request_is_the_same_error_with_both_backends(manager):
    with pytest.raises(InvalidRequestError) as wrong:
        manager.allocate(TrainingGPUConfig(gpu_count=0))
    assert wrong.value.field == "gpu_count"
    with pytest.raises(UnsatisfiableRequestError) as never:
        manager.allocate(TrainingGPUConfig(gpu_count=9))
    assert never.value.field == "gpu_count"
    assert never.value.reasons
    with gpu_resources(BIG, manager), pytest.raises(InsufficientCapacityError) as full:
        manager.allocate(BIG)
    assert any("big" in each for each in full.value.reasons)
    with pytest.raises(UnknownAllocationError):
        manager.backend.release("never was")


def test_the_same_token_is_the_same_allocation(manager):
    config = TrainingGPUConfig(client_token=f"mine {time.monotonic_ns()}")
    first, again = manager.allocate(config), manager.allocate(config)
    assert first.allocation.id == again.allocation.id
    with pytest.raises(TokenConflictError):
        manager.allocate(TrainingGPUConfig(gpu_count=2, client_token=config.client_token))
    first.release()
    again.release()
    assert free(manager) == ALL_FREE


@pytest.mark.parametrize("less", [{"min_memory_gb": 24}, {"cpu_fallback": True}])
def test_the_same_token_is_the_same_allocation_also_if_it_is_less(manager, less):
    config = TrainingGPUConfig(2, "A100-80GB", client_token=f"less {time.monotonic_ns()}", **less)
    with gpu_resources(BIG, manager):
        first = manager.allocate(config)
    assert first.allocation.memory_per_gpu == (40 if "min_memory_gb" in less else None)
    again = manager.allocate(config)  # the larger ones are free by now
    assert again.allocation.id == first.allocation.id
    first.release()
    with pytest.raises(TokenConflictError, match="new token"):
        manager.allocate(config)
    again.release()
    assert free(manager) == ALL_FREE


def test_less_memory_only_as_far_as_is_allowed(manager):
    with gpu_resources(BIG, manager):
        with pytest.raises(InsufficientCapacityError):
            manager.allocate(BIG)
        with gpu_resources(TrainingGPUConfig(2, "A100-80GB", min_memory_gb=24), manager) as less:
            assert less.allocation.memory_per_gpu == 40
            assert less.allocation.gpu_type == "A100"
            with pytest.raises(InsufficientCapacityError):
                manager.allocate(TrainingGPUConfig(2, "A100", memory_gb=80, min_memory_gb=40))
    assert free(manager) == ALL_FREE


def test_the_cpu_only_where_it_is_asked_for(manager):
    with gpu_resources(TrainingGPUConfig(gpu_type="H100", cpu_fallback=True), manager) as session:
        assert session.on_cpu
        assert session.pytorch().device_type == "cpu"
        session.check()
    with gpu_resources(BIG, manager):
        with gpu_resources(TrainingGPUConfig(2, "A100", 80, cpu_fallback=True), manager) as session:
            assert session.on_cpu
        with gpu_resources(TrainingGPUConfig(2, "A100", 80, cpu_fallback=True, min_memory_gb=1), manager) as session:
            assert not session.on_cpu  # before the CPU, GPUs with less memory
    assert free(manager) == ALL_FREE


def test_waiting_for_gpus_to_become_free(manager):
    first = manager.allocate(BIG)
    threading.Timer(0.7, first.release).start()
    with gpu_resources(TrainingGPUConfig(2, "A100-80GB", wait_seconds=30), manager) as session:
        assert session.allocation.node_names == ("big",)
    assert free(manager) == ALL_FREE


def test_a_lease_is_renewed_for_as_long_as_training_goes_on(manager, monkeypatch):
    monkeypatch.setattr(client_session, "RENEW_RATIO", 0.01)  # every tenth of a second, of ten
    with gpu_resources(TrainingGPUConfig(2, "A100-80GB", lease_seconds=10), manager) as session:
        first, first_end = session.allocation.expires, session._expires_at
        wait_until(lambda: session.renewals >= 3, "three renewals")
        session.check()
        assert session.allocation.expires > first
        assert session._expires_at > first_end
        assert free(manager) == {"middle": 2, "small": 1}
    assert free(manager) == ALL_FREE


def test_a_lost_lease_is_reported_to_the_job(manager, monkeypatch):
    monkeypatch.setattr(client_session, "RENEW_RATIO", 0.01)
    reported: list[str] = []
    with gpu_resources(TrainingGPUConfig(2, "A100-80GB", lease_seconds=10), manager, reported.append) as session:
        manager.backend.release(session.allocation.id)  # somebody gave it away
        assert session.lost.wait(60)
        with pytest.raises(LeaseLostError, match="allocate again"):
            session.check()
    assert len(reported) == 1
    assert "was released" in reported[0]
    assert free(manager) == ALL_FREE


def test_a_lease_is_lost_in_time_when_the_service_dies(tmp_path):
    with advisor(tmp_path, f"127.0.0.1:{free_port()}", settings(tmp_path)) as program:
        session = remote(program).allocate(TrainingGPUConfig(lease_seconds=2))
        program.kill()
        assert session.lost.wait(60)
        with pytest.raises(LeaseLostError, match="renewed in time"):
            session.check()
        session.release()  # cannot, and says so in the log only
    with pytest.raises(ServiceUnavailableError, match="gpu-advisor up"):
        get_gpu_resource_manager(program.url).allocate(BIG)


class UnansweredBackend:
    """Its renewals get no answer before the lease is over."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def renew(self, id_: str, lease_seconds: float | None, within_seconds: float) -> GrantedLease:
        self.timeouts.append(within_seconds)
        time.sleep(within_seconds)
        raise ServiceUnavailableError("no answer")

    def release(self, id_: str) -> None:
        raise ServiceUnavailableError("no answer")


def test_a_renewal_that_hangs_does_not_outlive_the_lease(tmp_path):
    (tmp_path / "machines.yml").write_text(MACHINES)
    manager = get_gpu_resource_manager(inventory_file=tmp_path / "machines.yml", database=tmp_path / "leases.db")
    leased = manager.backend.allocate(BIG.fields(), "token", 1)
    backend = UnansweredBackend()
    session = Session(backend, leased, time.monotonic(), 1)  # type: ignore[arg-type]
    assert session.lost.wait(60)
    assert all(0 < timeout < leased.seconds for timeout in backend.timeouts)
    with pytest.raises(LeaseLostError, match="renewed in time"):
        session.check()
    session.release()
    manager.close()


class LateBackend:
    """Its renewals are answered when the test lets them."""

    def __init__(self, lease: GrantedLease) -> None:
        self.lease, self.asked, self.answer = lease, threading.Event(), threading.Event()

    def renew(self, id_: str, lease_seconds: float | None, within_seconds: float) -> GrantedLease:
        self.asked.set()
        assert self.answer.wait(60)
        return self.lease

    def release(self, id_: str) -> None: ...


def test_a_lease_reported_lost_is_not_renewed_by_a_late_answer(local, monkeypatch):
    monkeypatch.setattr(client_session, "RENEW_RATIO", 0)
    leased = local.backend.allocate(BIG.fields(), "token", 60)
    backend, now = LateBackend(leased), [0.0]
    reported: list[str] = []
    session = Session(backend, leased, 0.0, 60, reported.append, lambda: now[0])  # type: ignore[arg-type]
    assert backend.asked.wait(60)
    now[0] = 61.0
    with pytest.raises(LeaseLostError):
        session.check()
    backend.answer.set()
    session._thread.join(60)
    assert not session._thread.is_alive()  # it asks no more: the job has stopped
    assert (session.renewals, session.seconds_left, len(reported)) == (0, 0, 1)


class SlowEvent(threading.Event):
    def is_set(self) -> bool:
        found = super().is_set()
        time.sleep(0.1)  # both threads have read it before one sets it
        return found


def test_a_lease_found_lost_by_two_threads_is_reported_once(local, monkeypatch):
    monkeypatch.setattr(client_session, "RENEW_RATIO", 1)
    leased = local.backend.allocate(BIG.fields(), "token", 60)
    now = [0.0]
    reported: list[str] = []
    session = Session(LateBackend(leased), leased, 0.0, 60, reported.append, lambda: now[0])  # type: ignore[arg-type]
    session.lost, now[0] = SlowEvent(), 61.0
    threads = [threading.Thread(target=session._mark_lost, args=(str(each),)) for each in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(reported) == 1
    session.release()


# Trying again with less memory


def _out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[GPUResourceManager]:
    (tmp_path / "machines.yml").write_text(MACHINES)
    made = get_gpu_resource_manager(inventory_file=tmp_path / "machines.yml", database=tmp_path / "leases.db")
    yield made
    made.close()


def test_training_is_tried_again_with_smaller_batches(local):
    scales: list[float] = []

    def train(session: Session) -> str:
        scales.append(session.batch_scale)
        assert free(local) == {"middle": 2, "small": 1}  # the same GPUs all the while
        if session.batch_scale > 0.3:
            _out_of_memory()
        return "trained"

    assert train_with_gpu_resources(BIG, train, local) == "trained"
    assert scales == [1.0, 0.5, 0.25]
    assert free(local) == ALL_FREE


@pytest.mark.parametrize("cpu_fallback", [False, True])
def test_out_of_memory_whatever_is_tried(local, cpu_fallback):
    seen: list[tuple[bool, float]] = []

    def train(session: Session) -> str:
        seen.append((session.on_cpu, session.batch_scale))
        if not session.on_cpu:
            _out_of_memory()
        assert str(session.apply_pytorch().device) == "cpu"  # torch is imported: nothing is left to be too late for
        return "slowly"

    config = TrainingGPUConfig(2, "A100-80GB", cpu_fallback=cpu_fallback)
    if cpu_fallback:
        assert train_with_gpu_resources(config, train, local, tries=2) == "slowly"
    else:
        with pytest.raises(torch.OutOfMemoryError):
            train_with_gpu_resources(config, train, local, tries=2)
    assert seen == [(False, 1.0), (False, 0.5), *([(True, 1.0)] if cpu_fallback else [])]
    assert free(local) == ALL_FREE


def test_other_errors_are_not_tried_again(local):
    calls: list[int] = []

    def train(session: Session) -> None:
        calls.append(1)
        raise ValueError("a mistake of the program")

    with pytest.raises(ValueError, match="mistake"):
        train_with_gpu_resources(BIG, train, local)
    assert (calls, free(local)) == ([1], ALL_FREE)


def test_gpus_are_not_there_is_an_error_of_setup(local):
    """Also in a process in which torch is imported already, as here."""
    with gpu_resources(BIG, local) as session, pytest.raises(SetupError):
        session.apply_pytorch()


# What is asked for, and who may ask


@pytest.mark.parametrize(
    ("config", "sizes", "expected"),
    [
        (TrainingGPUConfig(gpu_type="A100-80GB"), [80, 40], [("A100-80GB", None)]),
        (TrainingGPUConfig(gpu_type="A100-80GB", min_memory_gb=30), [16, 40, None, 80, 40, 48],
         [("A100-80GB", None), ("A100", 48), ("A100", 40)]),
        (TrainingGPUConfig(memory_gb=40, min_memory_gb=16), [16, 24], [(None, 40), (None, 24), (None, 16)]),
        (TrainingGPUConfig(gpu_type="nvidia.com/gpu", memory_gb=40, min_memory_gb=16), [16],
         [("nvidia.com/gpu", 40), ("nvidia.com/gpu", 16)]),
    ],
)  # fmt: skip
def test_what_is_asked_for_in_turn(config, sizes, expected):
    assert [(each["gpu_type"], each["memory_gb"]) for each in candidate_bodies(config, sizes)] == expected


@pytest.mark.parametrize("wrong", [{"min_memory_gb": 8}, {"memory_gb": 16, "min_memory_gb": 24}, {"wait_seconds": -1}])
def test_a_config_that_makes_no_sense(wrong):
    with pytest.raises(InvalidRequestError):
        TrainingGPUConfig(**wrong)


@pytest.mark.parametrize(
    ("status", "problem", "kind"),
    [
        (401, {}, LoginRequiredError),
        (404, {"detail": "gone"}, UnknownAllocationError),
        (409, {"detail": "client_token: used"}, TokenConflictError),
        (409, {"detail": "full", "reasons": ["a"]}, InsufficientCapacityError),
        (422, {"detail": "x", "reasons": ["a"], "errors": [{"pointer": "/gpu_type"}]}, UnsatisfiableRequestError),
        (422, {"detail": "x", "errors": [{"pointer": "/gpu_type"}]}, InvalidRequestError),
        (503, {"detail": "later"}, ServiceUnavailableError),
        (502, {}, ServiceUnavailableError),
    ],
)
def test_problem_documents_become_errors(status, problem, kind):
    assert type(error_from_problem(status, problem, "http://there")) is kind


def test_logins_addresses_and_files(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("s3cret-token-of-sixteen\n")
    config = settings(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    config_path = {**config, "web": {"bearer_token_file": str(token)}}
    with advisor(tmp_path, address, config_path) as program:
        monkeypatch.setenv("GPU_ADVISOR_URL", program.url)
        with pytest.raises(LoginRequiredError, match="token"):
            get_available_gpu_nodes()
        monkeypatch.setenv("GPU_ADVISOR_TOKEN_FILE", str(token))
        wait_until(lambda: _is_reachable(get_gpu_resource_manager()), "machines", program)
        with gpu_resources(BIG):
            assert len(get_available_gpu_nodes()) == 2
    monkeypatch.setenv("GPU_ADVISOR_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(LoginRequiredError, match="readable"):
        get_gpu_resource_manager()
    with pytest.raises(AllocationError, match="both"):
        get_gpu_resource_manager(inventory_file="x")


def test_one_process_has_the_database(local, tmp_path):
    with pytest.raises(LeaseStoreError, match="in use"):
        get_gpu_resource_manager(inventory_file=tmp_path / "machines.yml", database=tmp_path / "leases.db")
