"""Download all wheels for the images into a folder, because the test engine has no network.

python -m tests.compose.wheels FOLDER
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
"""The version in Debian bookworm, which stands in for the base image."""

EXTRAS = ("", "advisor", "web", "kubernetes")
BUILD = ("setuptools>=77", "wheel")


def requirements() -> list[str]:
    """The images' dependencies, as arguments for pip."""
    found = [Requirement(text) for text in requires("gpu-advisor") or ()]
    wanted = [each for each in found if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in EXTRAS)]
    return sorted({f"{each.name}{each.specifier}" for each in wanted if each.name != "gpu-advisor"} | {*BUILD})


def main(folder: Path) -> None:
    wanted = requirements()
    stamp = folder / hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:16]
    if stamp.exists():
        return
    print(f"Wheels for {', '.join(wanted)} ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "-qq", "--dest", str(folder), "--only-binary=:all:"]
    subprocess.run([*command, "--python-version", PYTHON, *wanted], check=True)
    stamp.touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
