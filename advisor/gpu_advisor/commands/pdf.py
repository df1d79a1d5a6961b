"""Prints a page as PDF by a Chromium or Chrome of this machine, without a window."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from gpu_advisor.commands.errors import CommandError

#: Names of the program, by distribution.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

TIMEOUT_SECONDS = 120


def print_pdf(html: str) -> bytes:
    """The page as PDF, as its print style says. Raises CommandError."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise CommandError("--format pdf needs Chromium or Chrome: install it, or print the HTML report as PDF")
    with tempfile.TemporaryDirectory(prefix="gpu-advisor-pdf-") as name:
        page, file = Path(name, "report.html"), Path(name, "report.pdf")
        page.write_text(html, "utf-8", "replace")
        # The page is our own and loads nothing. Chromium's sandbox does not work for root, nor in many containers.
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   f"--user-data-dir={name}/profile", "--no-pdf-header-footer", f"--print-to-pdf={file}",
                   page.as_uri()]  # fmt: skip
        try:
            subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
            return file.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            raise CommandError(f"{browser} printed no PDF: {_reason(error)}; print the HTML report instead") from error


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if not isinstance(error, subprocess.CalledProcessError):
        return type(error).__name__
    lines = error.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {error.returncode}"
