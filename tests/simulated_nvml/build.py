"""Compiles the simulated NVML: `build(folder)` creates `libnvidia-ml.so.1` there.

Put the folder into `LD_LIBRARY_PATH` before Python starts, or load the file with `ctypes.CDLL` before anything else
asks for NVML; name a control file (see control.py) in the environment variable `SIMULATED_NVML_CONTROL`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
CONTROL_VARIABLE = "SIMULATED_NVML_CONTROL"


class NoCompilerError(RuntimeError):
    """gcc is missing or failed."""


def build(target_dir: Path) -> Path:
    """Compile the library into `target_dir` (created if missing) and return its path.

    Raises NoCompilerError if gcc is missing or fails.
    """
    gcc = shutil.which("gcc")
    if gcc is None:
        raise NoCompilerError("the simulated NVML needs gcc: apt-get install gcc libc6-dev")
    target_dir.mkdir(parents=True, exist_ok=True)
    library = target_dir / LIBRARY
    command = [gcc, "-O2", "-Wall", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    done = subprocess.run(
        [*command, "-o", str(library), str(SOURCE), "-lm", "-lpthread"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NoCompilerError(f"gcc could not compile {SOURCE.name}:\n{done.stderr}")
    return library


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
