"""`import gpu_advisor.training` imports nothing heavy, and the monitor alone needs no PyTorch."""

from __future__ import annotations

import subprocess
import sys

import gpu_advisor.training as training
import pytest

PROGRAM = """
import sys
import gpu_advisor.training
{use}
HEAVY = {{"torch", "numpy", "lightning", "transformers", "pydantic", "prometheus_client", "requests", "http"}}
print(*sorted(set(sys.modules) & HEAVY))
"""


@pytest.mark.parametrize(
    ("use", "loaded"),
    [
        ("", ""),
        ("gpu_advisor.training.TrainingMonitor(job='a').summary()", "http"),
        ("gpu_advisor.training.PrefetchLoader", "torch"),
    ],
)
def test_heavy_modules_come_only_with_what_needs_them(use, loaded):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(use=use)], capture_output=True, text=True, check=True
    ).stdout.split()
    # torch brings numpy where it is installed.
    assert " ".join(name for name in done if name not in ("numpy", "http") or name in loaded) == loaded


def test_every_name_is_there():
    for name in training.__all__:
        assert getattr(training, name).__name__ == name
    with pytest.raises(AttributeError, match="NoSuchThing"):
        training.NoSuchThing  # noqa: B018
