"""Skips tests that need PyTorch, Lightning or Transformers where these are not installed (extra `dev`)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

_NEEDS = {"torch": "test_*.py", "lightning": "test_lightning.py", "transformers": "test_huggingface.py"}

collect_ignore_glob = [files for library, files in _NEEDS.items() if find_spec(library) is None]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Test machines are shared, and sums in a fixed order are reproducible."""
    import torch

    torch.set_num_threads(1)
