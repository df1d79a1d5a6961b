"""Options of the tests.

Property tests use the same examples in every run, so that a failure is due to the change. `make fuzz` draws new ones.
"""

from __future__ import annotations

import os

import hypothesis
import pytest

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.register_profile(  # a mutant is killed by any counterexample: no need of a small one
    "mutants",
    derandomize=True,
    deadline=None,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected pages of tests/golden/: python -m pytest tests/unit/exporter/test_golden.py "
        "--update-golden",
    )
    parser.addoption(
        "--update-pictures",
        action="store_true",
        help="take the screenshots of the page in docs/images/ again: python -m pytest tests/browser --update-pictures",
    )
    parser.addoption(
        "--exporter-pages",
        metavar="FOLDER",
        help="check what is made of saved /metrics pages (*.prom): python -m pytest"
        " tests/unit/sources/test_exporter_pages.py --exporter-pages FOLDER",
    )


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length.

    pytest writes them out, and then the name of a test may hold a time (that of gzip's header) or a memory address:
    two workers that import a module in different seconds would disagree about its tests.
    """
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


#: Folders whose tests wait for servers, browsers and PyTorch.
SLOW_FOLDERS = ("tests/integration", "tests/unit/training", "tests/browser", "tests/unit/allocation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow folders first, so that the workers of `make test` end at about the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW_FOLDERS))
