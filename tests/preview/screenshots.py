"""Screenshots of all dashboards for the demo fleet: the checked-in JSON over a real Prometheus, rendered by Grafana's
npm packages in Chromium.

    python -m tests.preview.screenshots docs/images/dashboards

Needs node, npm, Chromium, Prometheus (tests/get_servers.sh), and the network once for the packages. Grafana's packages
render everything but the frame around the panels and the annotation markers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from tests.preview.dashboard_queries import GENERATED, load_dashboards
from tests.preview.demo_history import END
from tests.preview.demo_prometheus import demo_prometheus
from tests.servers import Prometheus

PAGE = Path(__file__).with_name("page")
HOURS = 3.0
WIDTH = 1500
ROW, HEADER = 38, 100
READY_WITHIN_MS = 25_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--only", nargs="*", help="only these dashboards")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    options = parser.parse_args()
    build()
    options.folder.mkdir(parents=True, exist_ok=True)
    evaluations = [END - 300 * i for i in range(int(12 * HOURS), 0, -1)]
    with (
        tempfile.TemporaryDirectory() as name,
        demo_prometheus(Path(name), (HOURS + 1) * 3600, 30, evaluations, 5) as prometheus,
    ):
        wrong = take_screenshots(prometheus, options.folder, options.only or list(load_dashboards()), options.theme)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


def build() -> None:
    """Install the packages once, and bundle the page."""
    if not (PAGE / "node_modules").exists():
        command = ["npm", "install", "--legacy-peer-deps", "--no-package-lock", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=PAGE, check=True)
    subprocess.run(["node", "build.mjs"], cwd=PAGE, check=True)


def take_screenshots(prometheus: Prometheus, folder: Path, names: list[str], theme: str) -> list[str]:
    """Write one compressed picture per dashboard; return the page's errors."""
    from playwright.sync_api import TimeoutError, sync_playwright

    wrong: list[str] = []
    with serving(prometheus.url) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in names:
            rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in load_dashboards()[name]["panels"])
            page = chromium.new_page(viewport={"width": WIDTH, "height": HEADER + ROW * rows})
            page.on("pageerror", partial(_record_problem, wrong, name))
            page.goto(f"{address}/?{urlencode({**variable_values(prometheus, name), 'theme': theme})}")
            try:
                page.wait_for_selector("#board[data-ready=true]", timeout=READY_WITHIN_MS)
            except TimeoutError:
                wrong.append(f"{name}: not rendered within {READY_WITHIN_MS / 1000:.0f} s")
                continue
            wrong += [f"{name}: {error}" for error in json.loads(page.get_attribute("#board", "data-errors") or "[]")]
            page.wait_for_timeout(2000)  # charts are drawn in later frames
            picture = folder / f"{name}.png"
            page.screenshot(path=picture)
            page.close()
            subprocess.run(["node", "shrink.mjs", str(picture.resolve())], cwd=PAGE, check=True)
            print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
        chromium.close()
    return wrong


def _record_problem(wrong: list[str], name: str, error: object) -> None:
    wrong.append(f"{name}: {error}")


def variable_values(prometheus: Prometheus, name: str) -> dict[str, str]:
    """Selected values: a node and a GPU with many findings."""
    values = {"board": name, "to": str(END), "hours": str(HOURS)}
    if name == "node":
        return {**values, "var-nodename": "train-2"}
    if name == "gpu":
        advised = 'gpu_advisor_recommendation_gpu_info and on (uuid) gpu_owner_info{training_job="communication-bound"}'
        query = f"gpu:identity:info and on (uuid) ({advised})"
        [gpu, *_] = prometheus.query(query, END)
        labels = gpu["metric"]
        return {**values, "var-nodename": labels["nodename"], "var-uuid": labels["uuid"], "text-uuid": labels["index"]}
    return values


@contextmanager
def serving(prometheus_url: str) -> Iterator[str]:
    """Serve the page, the dashboards and Prometheus' API on one port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, prometheus_url, directory=str(PAGE)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, prometheus_url: str, *args: Any, **options: Any) -> None:
        self._prometheus_url = prometheus_url
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            self._send(requests.get(self._prometheus_url + self.path, timeout=60).content)
        elif self.path == "/boards/titles.json":
            self._send(json.dumps(sorted(board["title"] for board in load_dashboards().values())).encode())
        elif self.path.startswith("/boards/"):
            self._send((GENERATED / Path(self.path).name).read_bytes())
        else:
            super().do_GET()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no requests."""


if __name__ == "__main__":
    sys.exit(main())
