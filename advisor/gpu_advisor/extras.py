"""How to install an optional dependency (an extra in pyproject.toml). The package is not on PyPI."""

from __future__ import annotations

REPOSITORY = "https://github.com/gpu-advisor/gpu-advisor"


def install_hint(extra: str) -> str:
    """The end of an error message about a missing package."""
    return f"pip install '.[{extra}]' in a checkout, or pip install 'gpu-advisor[{extra}] @ git+{REPOSITORY}'"
