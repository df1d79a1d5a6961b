"""A real Chromium for tests of the page, and what it must never do: ask anybody else, complain, or pop up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.own_processes import Program, up
from tests.polling import TIMEOUT_SECONDS, wait_until
from tests.servers import free_port, require_binary

#: Every workload that leads to advice on single machines without other settings, and a GPU that is lost.
FLEET = (
    "1xH100-80GB:throttled,1xH100-80GB:lost,2xL4-24GB:saturated-serving,2xT4-16GB:idle-hoarder,2xT4-16GB:idle,"
    "1xH200-141GB:memory-bound,3xA100-80GB:held-up,1xA100-80GB:straggler,1xH200-141GB:failing"
)
PRICES = {"NVIDIA H100 80GB HBM3": 2.5, "NVIDIA H200": 3.8, "Tesla T4": 0.35, "NVIDIA L4": 0.7}
SETTINGS: dict[str, Any] = {
    "pools": [{"name": "chat", "kind": "serving", "match": {"name": ".*L4.*"}, "gpu": {"min": 1, "max": 8}}],
    "cost": {"gpu_price_per_hour": PRICES},
}

Open = Callable[..., Page]

TIMEOUT_MILLISECONDS = 1000 * TIMEOUT_SECONDS
expect.set_options(timeout=TIMEOUT_MILLISECONDS)  # 5 s by default


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = require_binary("chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, nor in many containers; the pages are our own.
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=TIMEOUT_MILLISECONDS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open an address in a new profile, in place of the last one. Fails at the end on requests to other hosts, console
    output, errors and dialogs."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_(url: str, *, width: int = 1280, errors_expected: bool = False, **options: Any) -> Page:
            stack.close()
            context = browser.new_context(viewport={"width": width, "height": 900}, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(TIMEOUT_MILLISECONDS)
            here = urlsplit(url).netloc
            page.on(
                "request",
                lambda request: (
                    None
                    if urlsplit(request.url).netloc == here or request.url.startswith("data:")
                    else complaints.append(f"asked {request.url}")
                ),
            )
            page.on("dialog", lambda dialog: complaints.append(f"popped up {dialog.message}"))
            if not errors_expected:
                page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
                page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
            page.goto(url)
            return page

        yield open_
    # A page that is open longer than its test's server refreshes in vain; other hosts are complained of above.
    assert [each for each in complaints if "net::ERR_CONNECTION_REFUSED" not in each] == []


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A machine with simulated GPUs of every trouble, and advice on them."""
    folder = tmp_path_factory.mktemp("demo")
    addresses = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    with up(folder, *addresses, FLEET, SETTINGS) as program:
        wait_until(lambda: len(program.get("/recommendations")["recommendations"]) >= len(KINDS), "all advice", program)
        yield program


#: What that fleet leads to.
KINDS = {"failing_gpu", "cooling", "idle_reclaim", "straggler", "scale_up", "memory_saving"}


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Keeps a picture of a page for the documentation, where --update-pictures asks for it."""

    def keep(page: Page, name: str) -> None:
        if request.config.getoption("--update-pictures"):
            folder = Path(__file__).parents[2] / "docs/images"
            page.screenshot(path=folder / f"{name}.png", full_page=False)

    return keep
