"""Download all wheels for the images into a folder, because the test engine has no network.

python -m tests.compose.wheels FOLDER
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
"""The version in Debian bookworm, which stands in for the base image."""

BUILD = ("setuptools>=77", "wheel")
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+==[^ ;\\]+)(?: ; ([^\\]+))?", re.MULTILINE)


def requirements() -> list[str]:
    """The images' dependencies, as the lock files have them, as arguments for pip."""
    found = set(BUILD)
    for file in sorted((ROOT / "docker").glob("requirements-*.txt")):
        for pinned, marker in _LOCKED.findall(file.read_text(encoding="utf-8")):
            if not marker or Marker(marker.strip()).evaluate(
                {"python_version": PYTHON, "python_full_version": f"{PYTHON}.2"}
            ):
                found.add(pinned)
    return sorted(found)


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
