"""A simulated node of `--profile demo`: writes its past for Prometheus, then becomes the exporter.

    demo_node.py FOLDER EXPORTER-ARGUMENT...

Without a past, half an hour would go by before anything can be said about idle GPUs. FOLDER/NODE.om is written as
OpenMetrics; the service `demo-past` makes blocks of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HISTORY_FILE = "1h"
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def add_target_labels(line: str, target: str) -> str:
    """A line of OpenMetrics with `target`, the labels that Prometheus gives to all series of a target."""
    name = NAME.match(line)
    if not name:
        return line  # a comment
    rest = line[name.end() :]
    return f"{name[0]}{{{target},{rest[1:]}" if rest.startswith("{") else f"{name[0]}{{{target}}}{rest}"


def main(folder: Path, arguments: list[str]) -> None:
    node = os.uname().nodename
    target = f'job="gpu-exporter",instance="{node}:9816"'
    past = folder / f"{node}.om"
    if not past.exists():
        unfinished = past.with_suffix(".unfinished")
        command = ["gpu-exporter", *arguments, "--simulate.history", HISTORY_FILE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child, unfinished.open("w") as out:
            out.writelines(add_target_labels(line, target) for line in child.stdout or ())
        if child.returncode:
            sys.exit(child.returncode)
        unfinished.rename(past)
    os.execvp("gpu-exporter", ["gpu-exporter", *arguments])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
