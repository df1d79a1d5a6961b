"""Fuzzes the exporter with a simulated NVIDIA driver that answers at random: codes, sizes, garbage, hangs.

    python -m tests.nvml_fuzz --minutes 30

An oracle checks each page: no crash, no GPU down without a reason, and no false value, that is one after an error code,
out of its range, or of another uuid. Exits with 1 and the machine, the faults and the seed of the episode otherwise;
`--seed N --episodes 1` repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nvml_fuzz")
    parser.add_argument("--minutes", type=float, help="how long to play (default: until --episodes are over)")
    parser.add_argument("--episodes", type=int, help="how many machines to play")
    parser.add_argument("--seed", type=int, help="of the first machine (default: a new one each time)")
    options = parser.parse_args()
    if options.minutes is None and options.episodes is None:
        parser.error("give --minutes or --episodes")
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.nvml_fuzz.worker", "--seed", str(seed)]
    for name in ("minutes", "episodes"):
        value = getattr(options, name)
        command += [f"--{name}", str(value)] if value is not None else []
    # MALLOC_PERTURB_: freed and fresh memory has no plausible values; PYTHONMALLOC: buffers have guards around them.
    environment = os.environ | {"MALLOC_PERTURB_": "165", "PYTHONMALLOC": "debug"}
    last_seed, figures = "", {}
    errors: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as worker:
        for line in worker.stdout or ():
            if line.startswith("seed "):
                last_seed, errors = line.split()[1], []
            elif line.startswith("{"):
                figures = json.loads(line)
            else:
                errors.append(line)
    print(", ".join(f"{name} {value}" for name, value in figures.items()))
    if worker.returncode == 0:
        return 0
    how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"exit status {worker.returncode}"
    print(f"{how} at seed {last_seed}; to repeat: python -m tests.nvml_fuzz --seed {last_seed} --episodes 1")
    print("".join(errors[-200:]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
