"""The exporter as a process: TLS and users from a file, the release of drivers, DCGM's names, textfiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.certificates import self_signed
from tests.own_processes import exporter
from tests.polling import wait_until
from tests.servers import free_port


def address() -> str:
    return f"127.0.0.1:{free_port()}"


def test_tls_and_users(tmp_path: Path) -> None:
    bcrypt = pytest.importorskip("bcrypt", reason="pip install bcrypt")
    self_signed(tmp_path)
    config = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config.write_text(
        f'tls_server_config: {{cert_file: cert.pem, key_file: key.pem}}\nbasic_auth_users: {{ada: "{hashed}"}}\n'
    )
    where = address()
    command = [sys.executable, "-m", "gpu_exporter", "--web.listen-address", where, "--web.config.file", str(config)]
    command += ["--simulate", "1xT4-16GB:idle"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            url, trusted = f"https://{where}/metrics", str(tmp_path / "cert.pem")
            wait_until(lambda: _status(url, trusted), "it answers over TLS")
            assert _status(url, trusted) == 401
            assert requests.get(url, verify=trusted, auth=("ada", "wrong"), timeout=60).status_code == 401
            page = requests.get(url, verify=trusted, auth=("ada", "secret"), timeout=60)
            assert page.status_code == 200
            assert "gpu_up{" in page.text
            with pytest.raises(requests.RequestException):
                requests.get(f"http://{where}/metrics", timeout=60)
        finally:
            process.terminate()


def _status(url: str, trusted: str) -> int | None:
    try:
        return requests.get(url, verify=trusted, timeout=60).status_code
    except requests.RequestException:
        return None


def test_textfiles_and_dcgm_names_are_exposed(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "a.prom").write_text("# TYPE training_batch_size gauge\ntraining_batch_size 32\n")
    (jobs / "broken.prom").write_text("training_loss{ 1\n")
    flags = ["--simulate", "1xT4-16GB:training", "--collector.textfile.directory", str(jobs), "--compat.dcgm"]
    with exporter(tmp_path, address(), *flags, "--no-collector.host") as program:
        page = program.text("/metrics")
        assert "training_batch_size 32" in page
        assert "broken.prom" in page
        assert "DCGM_FI_DEV_GPU_UTIL{" in page
        assert "node_load1" not in page
        assert requests.post(program.url + "/-/release", timeout=60).status_code == 405  # off by default


def test_drivers_are_released_on_request(tmp_path: Path) -> None:
    with exporter(tmp_path, address(), "--simulate", "1xT4-16GB:training", "--web.enable-lifecycle") as program:
        assert requests.post(program.url + "/-/release", timeout=60).status_code == 200
        page = program.text("/metrics")
        assert 'reason="released"} 1' in page
        assert "gpu_utilization_ratio{" not in page


def test_invalid_web_configuration_is_a_usage_error(tmp_path: Path) -> None:
    config = tmp_path / "web.yml"
    config.write_text("tls_server_confg: {}\n")
    command = [sys.executable, "-m", "gpu_exporter", "--web.config.file", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert f"{config}:1: " in done.stderr
    assert "tls_server_config" in done.stderr
