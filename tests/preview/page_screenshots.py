"""Screenshots of every page, light and dark, wide and on a phone, to look at.

    make screenshots OUT=/tmp/pages
    python -m tests.preview.page_screenshots /tmp/pages --only demo no-gpus
    python -m tests.preview.page_screenshots /tmp/pages --url http://127.0.0.1:9817

Starts an advisor in each situation of situations.py, or uses the running one at --url; follows the links, takes one
page of each sort, and prints where a page is wider than the window. Needs Chromium and Prometheus
(tests/get_servers.sh).
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, urldefrag, urljoin, urlsplit

import requests

from tests.preview.situations import SITUATIONS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: A report of 256 GPUs takes half a minute on a busy machine.
LOAD_WITHIN_MS = 300_000

WIDTHS = (1440, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

#: Pages that need input: a search, other settings, wrong ones, and addresses of nothing.
WITH_INPUT: Mapping[str, str] = {
    "gpus-grouped": "/page/gpus?group=owner&sort=power",
    "gpus-filtered": "/page/gpus?q=t4&show=advised",
    "gpus-none": "/page/gpus?q=no-such-gpu",
    "what-if-result": "/page/what-if?gpu.target_utilization=80&gpu.scale_up_threshold=75&pool1.min=2&budget=50",
    "what-if-invalid": "/page/what-if?gpu.min=9&gpu.max=2&gpu.scale_down_threshold=95",
    "no-such-page": "/no-such-page",
    "no-such-gpu": "/page/gpu?uuid=GPU-0",
    "no-such-recommendation": "/page/0123456789ab",
}

_ID = re.compile(r"[0-9a-f]{12,}")
_LINK = re.compile(r'<a [^>]*href="([^"]+)"')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--only", nargs="*", choices=list(SITUATIONS), help="only these situations")
    parser.add_argument("--url", help="a running advisor, instead")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        if options.url:
            too_wide = take_screenshots(chromium, options.url.rstrip("/"), options.folder)
        else:
            too_wide = [
                problem
                for name in options.only or SITUATIONS
                for problem in _screenshots_of(chromium, name, options.folder / name)
            ]
        chromium.close()
    print("\n".join(too_wide), file=sys.stderr)
    return 1 if too_wide else 0


def _screenshots_of(chromium: Browser, situation: str, folder: Path) -> list[str]:
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(SITUATIONS[situation](data))
        return take_screenshots(chromium, url, folder)


def find_pages(url: str) -> dict[str, str]:
    """Paths of the advisor's pages by name: those with input, and from the overview along the links one of each sort,
    where a recommendation's sort is its kind."""
    found = requests.get(f"{url}/recommendations", params={"per_page": 500}, timeout=60)
    recommendations = found.json()["recommendations"] if found.ok else []
    kinds = {each["id"]: f"{each['kind']}-{each['diagnosis']}" for each in recommendations}
    pages = {"overview": "/"}
    unread = ["/"]
    while unread:
        for link in _links(url, unread.pop(0)):
            name = _sort_of(link, kinds)
            if name not in pages:
                pages[name] = link
                unread.append(link)
    return {**pages, **WITH_INPUT}


def _links(url: str, path: str) -> Iterator[str]:
    """Where a page's links lead on this server; none where it is no page."""
    response = requests.get(url + path, headers={"Accept": "text/html"}, timeout=60)
    if "text/html" not in response.headers["Content-Type"]:
        return
    for href in _LINK.findall(response.text):
        target = urldefrag(urljoin(url + path, href.replace("&amp;", "&"))).url
        if target.startswith(url + "/") and _is_page(urlsplit(target).path, target):
            yield target.removeprefix(url)


def _is_page(path: str, target: str) -> bool:
    is_export = "format=csv" in target or "format=md" in target
    return path.startswith(("/page/", "/runbooks/")) or (path in ("/", "/report") and not is_export)


def _sort_of(link: str, kinds: Mapping[str, str]) -> str:
    """A name for the sort of a page."""
    parts = urlsplit(link)
    query = dict(parse_qsl(parts.query))
    name = parts.path.strip("/").removeprefix("page/")
    if _ID.fullmatch(name):
        return f"recommendation-{kinds.get(name, 'ended')}"
    if name.startswith("runbooks/"):
        return "runbook"
    if name == "check":
        return f"check-{query['item']}-{query['kind']}"
    return name or "overview"


def take_screenshots(chromium: Browser, url: str, folder: Path) -> list[str]:
    """Write NAME-SCHEME-WIDTH.png for each page; return the pages that are wider than the window."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = find_pages(url)
    too_wide = []
    for scheme in SCHEMES:
        for width in WIDTHS:
            page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            for name, path in pages.items():
                page.goto(url + path, timeout=LOAD_WITHIN_MS)
                file = folder / f"{name}-{scheme}-{width}.png"
                page.screenshot(path=file, full_page=True)
                if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                    too_wide.append(f"{file}: wider than the window")
            page.close()
    print(f"{folder}: {len(pages)} pages")
    return too_wide


if __name__ == "__main__":
    sys.exit(main())
