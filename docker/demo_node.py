"""A simulated node of `--profile demo`: writes its history for Prometheus, then runs the exporter.

    demo_node.py FOLDER EXPORTER-ARGUMENT...

Without history, recommendations on idle GPUs would take half an hour. The history is written to FOLDER/NODE.om in the
OpenMetrics format; the service `demo-past`, which is another user of the group that owns FOLDER, imports it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HISTORY_LENGTH = "1h"
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def add_target_labels(line: str, target: str) -> str:
    """An OpenMetrics line with `target`, the labels that Prometheus adds to all series of a target."""
    name = NAME.match(line)
    if not name:
        return line  # a comment
    rest = line[name.end() :]
    return f"{name[0]}{{{target},{rest[1:]}" if rest.startswith("{") else f"{name[0]}{{{target}}}{rest}"


def main(folder: Path, arguments: list[str]) -> None:
    node = os.uname().nodename
    target = f'job="gpu-exporter",instance="{node}:9816"'
    history = folder / f"{node}.om"
    if not history.exists():
        unfinished = history.with_suffix(".unfinished")
        command = ["gpu-exporter", *arguments, "--simulate.history", HISTORY_LENGTH]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child, unfinished.open("w") as out:
            out.writelines(add_target_labels(line, target) for line in child.stdout or ())
        if child.returncode:
            sys.exit(child.returncode)
        folder.chmod(0o750)
        unfinished.chmod(0o640)
        unfinished.rename(history)
    os.execvp("gpu-exporter", ["gpu-exporter", *arguments])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
