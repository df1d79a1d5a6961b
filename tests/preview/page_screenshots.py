"""Screenshots of every page of a running advisor, light and dark, wide and on a phone, to look at.

    gpu-advisor up --simulate 4xH100-80GB:training,2xH100-80GB:idle-hoarder,1xL40S-48GB:lost
    python -m tests.preview.page_screenshots http://127.0.0.1:9817 /tmp/pages

Prints where a page is wider than the window. Needs Chromium (tests/get_servers.sh).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import requests

WIDTHS = (1440, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PAGES: Mapping[str, str] = {
    "overview": "/",
    "gpus": "/page/gpus",
    "jobs": "/page/jobs",
    "serving": "/page/serving",
    "what-if": "/page/what-if",
    "report": "/report?format=html",
    "runbooks": "/runbooks/",
    "runbook": "/runbooks/GpuAdvisorIdleReclaim",
    "check": "/page/check?item=gpu_utilization&kind=fleet&of=fleet",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the advisor")
    parser.add_argument("folder", type=Path, help="output folder")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    too_wide = take_screenshots(options.url.rstrip("/"), options.folder)
    print("\n".join(too_wide), file=sys.stderr)
    return 1 if too_wide else 0


def pages_of(url: str) -> Mapping[str, str]:
    """Paths by name, with the pages of a recommendation and of its first GPU if there are any."""
    found = requests.get(f"{url}/recommendations", timeout=60).json()["recommendations"]
    advised = {"recommendation": f"/page/{found[0]['id']}"} if found else {}
    gpus = [uuid for each in found for uuid in each["gpus"]]
    return {**PAGES, **advised, **({"gpu": f"/page/gpu?uuid={quote(gpus[0])}"} if gpus else {})}


def take_screenshots(url: str, folder: Path) -> list[str]:
    """Write NAME-SCHEME-WIDTH.png for each page; return the pages that are wider than the window."""
    from playwright.sync_api import sync_playwright

    too_wide = []
    pages = pages_of(url)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for scheme in SCHEMES:
            for width in WIDTHS:
                page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for name, path in pages.items():
                    page.goto(url + path)
                    file = folder / f"{name}-{scheme}-{width}.png"
                    page.screenshot(path=file, full_page=True)
                    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                        too_wide.append(f"{file}: wider than the window")
                page.close()
        chromium.close()
    return too_wide


if __name__ == "__main__":
    sys.exit(main())
