"""Options of the tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the expected pages of tests/golden/ anew: python -m pytest tests/unit/exporter/test_golden.py "
        "--update-golden",
    )
