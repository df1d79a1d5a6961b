"""A private Docker engine with stand-ins for the base images, to run the compose stack on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_SECONDS = 30.0

_BASE = "debian-stand-in"

#: Stand-ins on a minimal Debian, with what the Dockerfile and the compose file need of each base image.
_PYTHON = f"""
FROM {_BASE}
RUN ln -s python3 /usr/bin/python && ln -sf busybox /usr/bin/wget
COPY wheels /wheels-of-the-index
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels-of-the-index
CMD ["python3"]
"""
_PROMETHEUS = f"""
FROM {_BASE}
RUN ln -sf busybox /usr/bin/wget && install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
"""
_ALERTMANAGER = f"""
FROM {_BASE}
RUN ln -sf busybox /usr/bin/wget && install -d -o 65534 -g 65534 /alertmanager
USER 65534:65534
VOLUME /alertmanager
ENTRYPOINT ["prometheus-alertmanager"]
"""


@dataclass(frozen=True)
class DockerEngine:
    """A running engine."""

    environment: Mapping[str, str]
    folder: Path = field(repr=False)

    def run(self, *command: str) -> str:
        """Run a command against this engine and return its stdout; on an error, fail the test with all output."""
        done = subprocess.run(
            command, env=dict(self.environment), cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}", False)
        return done.stdout

    def docker(self, *arguments: str) -> str:
        return self.run("/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker", *arguments)

    def compose(self, *arguments: str) -> str:
        return self.run("docker-compose", "--profile", "demo", *arguments)

    def inspect(self, service: str) -> dict[str, Any]:
        """`docker inspect` of a service's container; empty while there is none."""
        containers = self.docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.service={service}")
        found: dict[str, Any] = json.loads(self.docker("inspect", containers.strip()))[0] if containers else {}
        return found


@contextmanager
def engine(folder: Path) -> Iterator[DockerEngine]:
    """An engine with its data below `folder`, whose path must be short: socket paths are limited to 107 characters."""
    log_path = folder / "dockerd.log"
    (folder / "daemon.json").write_text("{}")
    command = [
        "dockerd", f"--host=unix://{folder}/docker.sock", f"--data-root={folder}/data", f"--exec-root={folder}/exec",
        f"--pidfile={folder}/dockerd.pid", f"--config-file={folder}/daemon.json", "--log-level=error",
    ]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "DOCKER_CONFIG": str(folder),
        "DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_BUILDKIT": "0", "COMPOSE_PROJECT_NAME": "stack",
        "ADVISOR_CONFIG": "./docker/advisor-demo.yml",
    }  # fmt: skip
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not (folder / "docker.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"dockerd cannot start here:\n{log_path.read_text()[-2000:]}")
            time.sleep(0.2)
        yield DockerEngine(environment, folder)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def build_stub_images(engine: DockerEngine, cache: Path) -> None:
    """Build the stand-ins under the image names in the Dockerfile and the compose file."""
    engine.docker("import", str(cache / "debian.tar"), _BASE)
    python = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert python
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for image, text in (
        (python[1], _PYTHON),
        (services["prometheus"]["image"], _PROMETHEUS),
        (services["alertmanager"]["image"], _ALERTMANAGER),
    ):
        context = engine.folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(text)
        if "COPY wheels" in text:
            shutil.copytree(cache / "wheels", context / "wheels")
        engine.docker("build", "--quiet", "--network=none", "--tag", image, str(context))
        shutil.rmtree(context)


def services() -> Sequence[str]:
    """All services but Grafana, whose image has no stand-in."""
    return [name for name in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"] if name != "grafana"]
