"""A report as PDF, by a real Chromium; without one, how to get it."""

from __future__ import annotations

import pytest
from gpu_advisor.commands import pdf
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.report.html import render_html

from tests.servers import require_binary
from tests.unit.report.builders import report_of, steady_gpu


def test_a_report_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "BROWSERS", (require_binary("chromium"),))
    printed = pdf.print_pdf(render_html(report_of([steady_gpu("GPU-0")])))
    assert printed.startswith(b"%PDF-")
    assert b"%%EOF" in printed[-1024:]


def test_without_a_browser_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "BROWSERS", ("no-such-browser",))
    with pytest.raises(CommandError, match="needs Chromium or Chrome"):
        pdf.print_pdf("")


def test_a_browser_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "BROWSERS", ("false",))
    with pytest.raises(CommandError, match="exit code 1"):
        pdf.print_pdf("")
