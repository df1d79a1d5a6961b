"""Options of the tests.

Properties are checked with the same examples in every run, so that a build says something of its change. `make fuzz`
draws others each time.
"""

from __future__ import annotations

import os

import hypothesis
import pytest

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the expected pages of tests/golden/ anew: python -m pytest tests/unit/exporter/test_golden.py "
        "--update-golden",
    )
    parser.addoption(
        "--update-pictures",
        action="store_true",
        help="make the pictures of the page in docs/images/ anew: python -m pytest tests/browser --update-pictures",
    )
