"""Which mutants are tried: evenly over modules, the same for a seed as long as their code stays the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.mutation.core import module_name, relative
from tests.mutation.patching import Mutant, Target, constant_users


def choose(targets: Iterable[Target], wanted: int, seed: int) -> list[Mutant]:
    """`wanted` mutants, as many of each module as of any other while it has some left."""
    targets = list(targets)
    sources = {target.path: target.source for target in targets}
    queues = [_usable(target, sources, seed) for target in targets]
    chosen: list[Mutant] = []
    while queues and len(chosen) < wanted:
        for queue in list(queues):
            mutant = next(queue, None)
            if mutant is None:
                queues.remove(queue)
            elif len(chosen) < wanted:
                chosen.append(mutant)
    return sorted(chosen, key=lambda mutant: (mutant.path, mutant.index))


def _usable(target: Target, sources: dict[Path, str], seed: int) -> Iterator[Mutant]:
    module = module_name(target.path)
    for mutant in _shuffled(target.mutants(), seed):
        name = mutant.mutation.name
        if target.can_apply(mutant) and (name is None or constant_users(name, module, sources)):
            yield mutant


def _shuffled(mutants: list[Mutant], seed: int) -> list[Mutant]:
    """By a hash of seed and change: an edit elsewhere in the file does not choose other mutants."""
    seen: Counter[tuple[str, ...]] = Counter()
    keyed = []
    for mutant in mutants:
        change = mutant.mutation
        key = (relative(mutant.path), change.function, change.kind, change.before, change.after)
        text = "\0".join((str(seed), *key, str(seen[key])))
        seen[key] += 1
        keyed.append((hashlib.sha256(text.encode()).digest(), mutant))
    return [mutant for _, mutant in sorted(keyed, key=lambda each: each[0])]
