"""Compiles the simulated NVML: `build(folder)` creates `libnvidia-ml.so.1` there.

Put the folder into `LD_LIBRARY_PATH` before Python starts, or load the file with `ctypes.CDLL` before anything else
asks for NVML; name a control file (see control.py) in the environment variable `SIMULATED_NVML_CONTROL`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
CONTROL_VARIABLE = "SIMULATED_NVML_CONTROL"


class NoCompilerError(RuntimeError):
    """gcc is missing or failed."""


def build(target_dir: Path, missing: Collection[str] = (), compiled: Path | None = None) -> Path:
    """Create the library in `target_dir` (created if missing) and return its path.

    It does not export the functions in `missing`, as that of an older driver. `compiled` is what `compile_source`
    returned, for several libraries. Raises NoCompilerError if gcc is missing or fails.
    """
    target_dir.mkdir(parents=True, exist_ok=True)
    library, exports = target_dir / LIBRARY, target_dir / "exports"
    hidden = f"local: {' '.join(f'{name};' for name in sorted(missing))}" if missing else ""
    exports.write_text(f"{{ global: *; {hidden} }};\n", encoding="utf-8")
    _gcc(
        "-shared", f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={exports}", "-o", str(library),
        str(compiled or compile_source(target_dir)), "-lm", "-lpthread",
    )  # fmt: skip
    return library


def compile_source(target_dir: Path) -> Path:
    """The compiled source, in `target_dir`. Raises NoCompilerError."""
    target = target_dir / "nvml.o"
    _gcc("-O2", "-Wall", "-fPIC", "-c", "-o", str(target), str(SOURCE))
    return target


def _gcc(*arguments: str) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        raise NoCompilerError("the simulated NVML needs gcc: apt-get install gcc libc6-dev")
    done = subprocess.run([gcc, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoCompilerError(f"gcc could not compile {SOURCE.name}:\n{done.stderr}")


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
