"""PyTorch's settings applied in processes of their own, with the real torch."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.allocation.frameworks import PyTorchSettings, SetupOptions, child_environment, pytorch_settings
from gpu_advisor.allocation.model import NodeAllocation

from tests.servers import free_port
from tests.unit.allocation.allocations import make_allocation

pytest.importorskip("torch")

WITHIN_SECONDS = 180
BEFORE = """
import json, sys
from gpu_advisor.allocation.frameworks import *
from gpu_advisor.allocation.frameworks.pytorch import pytorch_from_document
settings = pytorch_from_document(json.load(sys.stdin))
"""
#: PyTorch with two GPUs of one generation, as far as settings reach it: what is set is recorded.
TWO_GPUS = """
import torch
recorded = []
torch.cuda.device_count = lambda: 2
torch.cuda.set_device = lambda index: recorded.append(["device", index])
torch.cuda.set_per_process_memory_fraction = lambda ratio, index: recorded.append(["fraction", ratio, index])
torch.cuda.get_device_capability = lambda index: (7, 5)
applied = apply_pytorch()
print(json.dumps([recorded, str(applied.device), str(applied.dtype), applied.scales_gradients,
                  torch.cuda._parse_visible_devices()]))
"""
ON_THE_CPU = """
applied = apply_pytorch(settings)
import torch
with applied.autocast():
    product = torch.ones(4, 4) @ torch.ones(4, 4)
print(json.dumps([str(product.dtype), applied.grad_scaler().is_enabled(), applied.memory_ratio,
                  torch.cuda._parse_visible_devices(), str(applied.device)]))
"""
REFUSED = """
try:
    apply_pytorch(settings)
except SetupError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
RANK = """
import sys
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(total)
with open(f"{sys.argv[1]}/{dist.get_rank()}", "w") as file:
    file.write(f"{dist.get_world_size()} {int(total)}")
dist.destroy_process_group()
"""


def clean() -> dict[str, str]:
    unwanted = ("VISIBLE_DEVICES", "ALLOC_CONF", "LOCAL_RANK", "GPU_ADVISOR")
    return {name: value for name, value in os.environ.items() if not any(word in name for word in unwanted)}


def run_and_parse(program: str, settings: PyTorchSettings, **variables: str) -> Any:
    """What a program prints as JSON, which gets the settings as a client of the API does: as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + program],
        input=json.dumps(settings.document()),
        capture_output=True,
        text=True,
        env=clean() | variables,
        timeout=WITHIN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("gpu_type", "variables", "reported", "device", "dtype"),
    [
        ("A100", {}, [["device", 0], ["fraction", 0.7, 0], ["fraction", 0.7, 1]], "cuda:0", "torch.bfloat16"),
        ("NEWCARD", {"LOCAL_RANK": "1"}, [["device", 1], ["fraction", 0.7, 1]], "cuda:1", "torch.float16"),
    ],
)
def test_devices_memory_and_number_type_are_those_of_the_settings(gpu_type, variables, reported, device, dtype):
    """One process for both GPUs, then one of two. An unknown type's number type is asked of the device."""
    request = make_allocation(gpus=2, gpu_memory_fraction=0.7, mixed_precision=True)
    allocation = replace(request, gpu_type=gpu_type, shares=(NodeAllocation("a", (1, 3), ()),))
    # The program imports torch first, so it is started with the variables, as torchrun starts it: under the name
    # that this version wants, or the one that every version knows, since a service does not know which is here.
    settings = pytorch_settings(allocation, SetupOptions(version="" if variables else version("torch")))
    found = run_and_parse(TWO_GPUS, settings, **variables, **child_environment(settings))
    assert found == [reported, device, dtype, dtype == "torch.float16", [1, 3]]


def test_on_the_cpu_autocast_is_in_force_and_no_gpu_visible():
    settings = pytorch_settings(replace(make_allocation(mixed_precision=True), shares=()))
    assert run_and_parse(ON_THE_CPU, settings) == ["torch.bfloat16", False, None, [], "cpu"]


def test_on_the_cpu_torch_may_be_imported_until_it_looks_for_gpus():
    settings = pytorch_settings(replace(make_allocation(mixed_precision=True), shares=()))
    assert run_and_parse("import torch\n" + ON_THE_CPU, settings)[-1] == "cpu"
    looked = "import torch\ntorch.cuda.is_available = lambda: True\n"  # as a driver that was started before does
    kind, message = run_and_parse(looked + REFUSED, settings)
    assert kind == "AlreadyInitializedError"
    assert "CUDA_VISIBLE_DEVICES=-1" in message


@pytest.mark.parametrize(
    ("before", "variables", "kind", "words"),
    [
        ("import torch", {}, "AlreadyInitializedError", "CUDA_VISIBLE_DEVICES=GPU-0,GPU-1"),
        ("settings = None", {}, "SetupError", "GPU_ADVISOR_PYTORCH is not set"),
        ("settings = None", {"GPU_ADVISOR_PYTORCH": "{}"}, "SetupError", "is invalid"),
        ("", {"CUDA_VISIBLE_DEVICES": "0"}, "SettingsConflictError", "unset CUDA_VISIBLE_DEVICES"),
        ("", {}, "MissingDevicesError", "but 2 are allocated"),  # no GPU is there, and nobody asked for the CPU
    ],
)
def test_refusals_say_how_to_fix_it(before, variables, kind, words):
    found, message = run_and_parse(before + REFUSED, pytorch_settings(make_allocation(gpus=2)), **variables)
    assert found == kind
    assert words in message


@pytest.mark.parametrize(
    "shares",
    [
        (NodeAllocation("here", (0, 1), ()),),
        (NodeAllocation("first", (0,), (), "localhost"), NodeAllocation("second", (0,), ())),
    ],
)
def test_the_line_really_starts_ranks_that_find_each_other(tmp_path, shares):
    """Two processes on one node, and one on each of two nodes, which here are the same machine."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    results = tmp_path / "results"
    results.mkdir()
    options = SetupOptions(script=f"{script} {results}", port=free_port())
    settings = pytorch_settings(replace(make_allocation(), shares=shares), options)
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    started = [
        subprocess.Popen(
            [*torchrun, *shlex.split(node.command)[1:]], env=clean() | dict(node.environment), cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in settings.nodes
    ]  # fmt: skip
    try:
        outputs = [each.communicate(timeout=WITHIN_SECONDS)[0] for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()
    assert [each.returncode for each in started] == [0] * len(shares), outputs
    assert {Path(each).name: each.read_text() for each in results.iterdir()} == {"0": "2 3", "1": "2 3"}
