"""The clusters of these tests: Slurm 22.05 and 26.05, from Debian's packages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster, cluster, machine_has_only_v2
from tests.slurm.node import SlurmNode
from tests.slurm.node import node as run_node

#: The folder with the unpacked Debians, which run.sh makes.
CACHE = os.environ.get("GPU_ADVISOR_SLURM")
VERSIONS = ("22.05", "26.05")


@pytest.fixture(scope="package", params=VERSIONS)
def slurm_of_version(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    if not CACHE:
        pytest.skip("needs root and a minimal Debian: make test-slurm")
    version = str(request.param)
    # 26.05 has no cgroup v1 of its own any more than most machines have.
    cgroups = "v2" if version != "22.05" or machine_has_only_v2() else "v1"
    with cluster(Path(CACHE) / f"{version}.tar", tmp_path_factory.mktemp("slurm"), cgroups) as running:
        history: list[str] = []
        running.history = history
        try:
            yield running
        finally:
            path = Path(CACHE) / f"transcript-{version}.txt"
            path.write_text(f"Slurm {version}, cgroup {cgroups}\n\n" + "\n".join(history))


@pytest.fixture(scope="package")
def node_of_version(slurm_of_version: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNode]:
    with run_node(slurm_of_version, tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture
def slurm(slurm_of_version: SlurmCluster, request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    """A cluster without jobs."""
    slurm_of_version.transcript.clear()
    yield slurm_of_version
    slurm_of_version.history += [f"== {request.node.name}", *slurm_of_version.transcript]
    slurm_of_version.cancel_all()
    for path in (slurm_of_version.root / "work").glob("*"):
        path.unlink()


@pytest.fixture
def node(slurm: SlurmCluster, node_of_version: SlurmNode) -> Iterator[SlurmNode]:
    """Node n1 without processes on its GPUs."""
    yield node_of_version
    node_of_version.run_on({})
