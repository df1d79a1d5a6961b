"""Writes docs/diagnosis.md, the decision table, from the code that decides by it.

python docs/build_diagnosis.py            writes it
python docs/build_diagnosis.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu_advisor.evaluation.diagnosis.conditions import AnyOf, Condition, ThresholdCondition, UnlessCondition
from gpu_advisor.evaluation.diagnosis.decision_table import DECISION_TABLE, DIAGNOSES, SECONDARY_ROWS, DecisionRow
from gpu_advisor.evaluation.diagnosis.diagnose import features_of
from gpu_advisor.evaluation.diagnosis.features import FEATURES

PAGE = Path(__file__).with_name("diagnosis.md")
COMMAND = "python docs/build_diagnosis.py"

INTRODUCTION = f"""# How causes are told apart

Low utilization has causes, and few of them are cured by fewer GPUs. For each GPU the advisor goes through the table
below; the first row whose conditions all hold gives the diagnosis, and the diagnosis says which recommendations follow.
Made by `{COMMAND}` from the code that decides: do not edit.

- **Dead bands.** A condition holds from its threshold on and fails from the one in brackets. Between the two it does
  neither: advice is not begun there, and what was given is not ended.
- **Missing is not false.** A condition on something that nobody publishes does neither, either. If no row holds, the
  answer is *unknown*, and the abstention names what would be needed.
- **Windows.** All figures are of the idle window (`evaluation.idle_window_seconds`, half an hour), but for those of the
  node, which are of the short one. Ratios are 0 to 1.
- **Jobs.** Causes that lie in the work are those of the job: what at least half of its GPUs have. A GPU that waits for
  a slow one of its job is not ill. One recommendation is made for each job and cause; for a pool where jobs are not
  known; for a node where heat or power is the cause.
- **Throttling** is told by clocks that are lost. A power cap at full load, which all GPUs of a model have, is normal.

Jobs are known by `gpu_owner_info`. What they report of themselves, through the exporter's textfile directory, has the
`uuid` of the GPU that a rank runs on, beside `training_job` and `rank`:

| family | type | meaning |
| --- | --- | --- |
| `training_step_seconds_total` | counter | time in training steps, waiting included |
| `training_data_wait_seconds_total` | counter | of it, waiting for the next batch |
| `training_communication_seconds_total` | counter | of it, waiting for other ranks |
| `training_steps_total`, `training_samples_total` | counter | steps and samples done |
| `training_batch_size` | gauge | samples a step on this rank |
| `training_peak_memory_bytes` | gauge | most memory that tensors took at once |
"""

GOOD = """How well this works is measured on situations drawn from the physics of a training step, which were written
before the table: `make bench-diagnosis` prints the figures and writes them to `benchmarks/results/diagnosis.json`.
"""


def text() -> str:
    return "\n".join(
        [
            INTRODUCTION,
            GOOD,
            *_rows("Diagnoses", DECISION_TABLE),
            *_rows("Beside a diagnosis", SECONDARY_ROWS),
            *_meanings(),
            *_features(),
        ]
    )


def _rows(title: str, rows: Sequence[DecisionRow]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| diagnosis | conditions | that is | leads to |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        name = f"`{row.diagnosis}`" + (f" ({row.variant})" if row.variant else "")
        kinds = ", ".join(f"[{kind}](runbooks/{_runbook(kind)}.md)" for kind in DIAGNOSES[row.diagnosis].kinds)
        yield f"| {name} | {'<br>'.join(_condition(each) for each in row.when)} | {row.reason} | {kinds} |"
    yield ""


def _condition(condition: Condition) -> str:
    if isinstance(condition, UnlessCondition):
        return f"not {_at(condition.other)}"
    return " or ".join(_at(each) for each in condition.of) if isinstance(condition, AnyOf) else _at(condition)


def _at(at: ThresholdCondition) -> str:
    sign = "≥" if at.side == "above" else "≤"
    return f"`{at.feature}` {sign} {at.yes:g} ({at.no:g})"


def _runbook(kind: str) -> str:
    return "GpuAdvisor" + "".join(part.capitalize() for part in kind.split("_"))


def _meanings() -> Iterator[str]:
    yield "## What the diagnoses mean\n"
    for each in DIAGNOSES.values():
        yield f"- `{each.name}`: {each.explanation}"
    yield "- `unknown`: no row holds. Nothing is recommended.\n"


def _features() -> Iterator[str]:
    used = {name for row in (*DECISION_TABLE, *SECONDARY_ROWS) for name in features_of(row)}
    yield "## What the conditions look at\n"
    yield "| figure | meaning | signals |"
    yield "| --- | --- | --- |"
    for feature in FEATURES:
        if feature.name in used:
            signals = ", ".join(f"`{signal.name}`" for signal in feature.signals)
            yield f"| `{feature.name}` | {feature.about} | {signals} |"
    yield ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is stale")
    check = parser.parse_args(argv).check
    now = text()
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != now:
            print(f"{PAGE} is stale: {COMMAND}", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(now, encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
