"""Do micro-batches have the gradients of their batch? `python -m benchmarks.gradients`

Every loss with every model and batch, in float64 and without dropout: the gradients of the divided step must equal
those of the undivided one, or the manager must refuse to divide it. It must not refuse where an exact weight exists.
"""

from __future__ import annotations

import itertools
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterable

import torch

from benchmarks.common import Goal, missed_goals, table, write
from benchmarks.gradients.batches import SHAPES
from benchmarks.gradients.comparison import TOLERANCE_RATIO, Comparison, compare
from benchmarks.gradients.losses import LOSSES
from benchmarks.gradients.models import MODELS


def main() -> int:
    torch.set_num_threads(1)
    logging.getLogger("gpu_advisor").setLevel(logging.ERROR)  # what the manager says of each refusal
    warnings.simplefilter("ignore")  # of the variance of a single sample
    found = [compare(*each) for each in itertools.product(LOSSES, MODELS, SHAPES)]
    print(table([("", "cases", "equal", "refused", "different"), *_rows(found)]))
    different = [each for each in found if not each.equal and not each.refused]
    needless = [each for each in found if each.refused and each.has_exact_weight]
    for each in [*different, *needless][:20]:
        print(f"{each.loss}, {each.model}, {each.shape}: {each.error_ratio or each.reason}")
    largest = max(each.error_ratio for each in found if each.equal and each.error_ratio is not None)
    goals = [
        Goal(
            f"gradients equal to {TOLERANCE_RATIO:g}, or refused",
            not different,
            f"{len(different)} of {len(found)} differ",
        ),
        Goal("no refusal where an exact weight exists", not needless, f"{len(needless)} refused"),
    ]
    print(*goals, sep="\n")
    results = {
        "torch": torch.__version__,
        "losses": len(LOSSES), "models": len(MODELS), "shapes": len(SHAPES), "cases": len(found),
        "equal": sum(each.equal for each in found), "refused": sum(each.refused for each in found),
        "refused_needlessly": len(needless), "different": len(different), "largest_error_ratio": largest,
    }  # fmt: skip
    print(f"written to {write('gradients', results)}")
    return 1 if missed_goals(goals) else 0


def _rows(found: Iterable[Comparison]) -> Iterable[tuple[str, ...]]:
    kinds = {True: "an exact weight exists", False: "none exists"}
    counted = Counter((each.has_exact_weight, "equal" if each.equal else "refused" if each.refused else "different")
                      for each in found)  # fmt: skip
    for exact, name in kinds.items():
        counts = [counted[exact, verdict] for verdict in ("equal", "refused", "different")]
        yield name, str(sum(counts)), *map(str, counts)


if __name__ == "__main__":
    sys.exit(main())
