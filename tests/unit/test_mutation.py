"""The mutation tester: the changes that it makes, and that they are in force for all who have imported the code."""

from __future__ import annotations

import ast

import pytest
from gpu_advisor.planning import known_models, layout_search
from gpu_advisor.sources import reductions

from tests.mutation.children import TIMED_OUT, ForkError, run_forked
from tests.mutation.core import TESTS, core_files, module_name
from tests.mutation.operators import mutated, mutations
from tests.mutation.patching import Mutant, constant_users, load_targets
from tests.mutation.selection import choose


def changes(code: str) -> set[tuple[str, str]]:
    return {(each.before, each.after) for each in mutations(f"def f(a, b, c):\n    {code}\n")}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = a < b", {("a < b", "a <= b"), ("a < b", "a >= b")}),
        ("x = a is None", {("a is None", "a is not None")}),
        ("x = a + 2", {("a + 2", "a - 2"), ("2", "3"), ("2", "1")}),
        ("x = 0.5", {("0.5", "1.0"), ("0.5", "0.25")}),
        ("x = True", {("True", "False")}),
        ("x = a and not b", {("a and (not b)", "a or not b"), ("a and (not b)", "a"), ("a and (not b)", "not b"),
                             ("not b", "b")}),
        ("return a", {("return a", "return None")}),
        ("return None", set()),
        ("x = min(a, key=b)", {("min(a, key=b)", "max(a, key=b)"), ("min(a, key=b)", "min(a)")}),
        ("x = a.get(b, c)", {("a.get(b, c)", "a.get(b)")}),
        ("x = sorted(a)", {("sorted(a)", "list(a)")}),
        ("x = a[b:c]", {("b:c", ":c"), ("b:c", "b:")}),
        ("x = [d for d in a if d]", {("d", "not d")}),
        ("x = a if b else c", {("a if b else c", "a if not b else c")}),
        ("a.append(b)", {("a.append(b)", "pass")}),
        ("a += b", {("a += b", "a -= b")}),
        ("x = 'text'", set()),
        ("x = f'{a + 1}'", set()),
        ("raise ValueError(a + 1)", set()),
    ],
)  # fmt: skip
def test_changes_of_code(code: str, expected: set[tuple[str, str]]) -> None:
    assert changes(code) == expected


def test_only_numbers_are_changed_outside_of_functions() -> None:
    source = "LIMIT = 3\nNAME = 'x'\nTABLE = (f(1), 2)\n\ndef f(a: int = 4) -> int:\n    return a\n"
    assert [(each.name, each.after) for each in mutations(source)] == [
        ("LIMIT", "4"), ("LIMIT", "2"), (None, "return None"),
    ]  # fmt: skip


def test_each_mutation_changes_one_place() -> None:
    source = core_files()[0].read_text()
    whole = ast.unparse(ast.parse(source))
    for index in range(len(mutations(source))):
        assert ast.unparse(mutated(source, index)) != whole


def test_the_code_and_the_tests_are_there() -> None:
    assert len(core_files()) >= 90
    assert all((core_files()[0].parents[3] / name).exists() for name in TESTS)


def test_a_mutant_is_in_force_for_importers_too() -> None:
    path = next(each for each in core_files() if module_name(each) == "gpu_advisor.sources.reductions")
    (target,) = load_targets([path])
    index = next(i for i, each in enumerate(mutations(target.source)) if each.before == "per_seconds is not None")
    mutant = Mutant(path, index, mutations(target.source)[index])
    assert target.can_apply(mutant)
    called = reductions.increase  # as another module has imported it

    def rate() -> float | None:
        import numpy as np

        times = np.array([0, 10_000, 20_000], np.int64)
        return called(times, np.array([0.0, 10.0, 20.0]), 20_000, 20_000, per_seconds=20.0)

    def with_mutant() -> float | None:
        target.apply(mutant)
        return rate()

    assert dict(run_forked([rate, with_mutant], 2)) == {0: 1.0, 1: 20.0}
    assert rate() == 1.0  # this process keeps the code


def test_a_constant_is_changed_where_it_was_imported() -> None:
    path = next(each for each in core_files() if module_name(each) == "gpu_advisor.planning.memory_model")
    sources = {each: each.read_text() for each in core_files()}
    users = constant_users("MAX_MICRO_BATCH", "gpu_advisor.planning.layout_search", sources)
    assert users is not None
    assert {module_name(each).rpartition(".")[2] for each in users} == {"layout_search", "traced_plan"}
    assert layout_search.MAX_MICRO_BATCH == 64
    assert constant_users("OVERHEAD_BYTES", module_name(path), sources) is None  # the default of a parameter


def test_the_choice_is_even_and_the_same_for_a_seed() -> None:
    targets = [target for target in load_targets(core_files()[:6]) if target.mutants()]
    chosen = choose(targets, 5 * len(targets), 1)
    assert choose(targets, 5 * len(targets), 1) == chosen != choose(targets, 5 * len(targets), 2)
    assert {sum(each.path == target.path for each in chosen) for target in targets} == {5}


def test_a_fork_that_hangs_ends_by_its_alarm() -> None:
    import signal
    import time

    def hang() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(60)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ForkError, match="ValueError: no"):
        list(run_forked([fail], 2))
    assert dict(run_forked([hang, known_models.parse_parameter_count.__name__.upper], 2)) == {
        0: TIMED_OUT, 1: "PARSE_PARAMETER_COUNT",
    }  # fmt: skip
