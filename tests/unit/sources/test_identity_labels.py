"""Identities fall back from placeholders, in rows that are read and in queries alike, and never merge GPUs."""

from __future__ import annotations

import pytest
from gpu_advisor.promql.expressions import Expression, Labels, Selector, restrict_to_values
from gpu_advisor.sources.algebra import MutableVector, evaluate_expression
from gpu_advisor.sources.exporters.identity_labels import identify, identity_expression
from gpu_advisor.sources.exporters.identity_rows import RowReader
from gpu_advisor.sources.exporters.mapping_files import mappings
from gpu_advisor.sources.matchers import compile_matchers
from hypothesis import given
from hypothesis import strategies as st

PLACEHOLDERS = (
    "", "N/A", "n/a", "NA", "[N/A]", "None", "Unknown", "[Unknown Error]", "Not Supported", "[Not Supported]",
    "0", "00", "0x0", "0000000000000", "00000000-0000-0000-0000-000000000000", "localhost",
    "GPU-00000000-0000-0000-0000-000000000000", "MIG-00000000-0000-0000-0000-000000000000",
)  # fmt: skip
IDENTIFIERS = (
    "692409005400", "10", "0a", "GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a", "GPU-aaaa", "GPU-0000", "Nano-1",
    "0000:0a:00.0", "GPU-0946f70c-659b-4c39-8b78-7e7600000000", "node-1", "notary-7", "unknown-host-3",
)  # fmt: skip
CANDIDATES = [(("s",),), (("s",), ("u",)), (("s",), ("h", "i")), (("s",), ("u",), ("h", "i"), ("instance", "i"))]

values = st.sampled_from([*PLACEHOLDERS[:7], *IDENTIFIERS[:4]])
labels = st.fixed_dictionaries(
    {"s": values, "u": values, "h": values, "i": values, "instance": st.sampled_from(["", "a:1"])}
)
series = st.lists(labels, min_size=1, max_size=8).map(
    lambda rows: {tuple(sorted((k, v) for k, v in {**row, "n": str(n)}.items() if v)): n for n, row in enumerate(rows)}
)


def evaluate(expression: Expression, rows: dict[Labels, float]) -> MutableVector:
    def lookup(part: Expression) -> MutableVector | None:
        if not isinstance(part, Selector):
            return None
        matches = compile_matchers(part.matchers)
        return {each: value for each, value in rows.items() if matches(dict(each))}

    return evaluate_expression(expression, lookup)


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_identifies_nothing(text: str) -> None:
    assert identify({"s": text}, [("s",)]) is None
    assert identify({"s": text, "u": "x"}, [("s",), ("u",)]) == ("x", 1)


@pytest.mark.parametrize("text", IDENTIFIERS)
def test_what_is_no_placeholder_identifies(text: str) -> None:
    assert identify({"s": text}, [("s",)]) == (text, 0)


def test_an_index_may_be_zero_beside_a_node() -> None:
    assert identify({"s": "N/A", "h": "n1", "i": "0"}, [("s",), ("h", "i")]) == ("n1~0", 1)
    assert identify({"s": "N/A", "h": "n1", "i": "N/A"}, [("s",), ("h", "i")]) is None


def test_a_prefix_completes_the_exporters_own_identifier_only() -> None:
    candidates = (("uuid",), ("instance",), ("h", "i"))
    assert identify({"uuid": "1c67"}, candidates, "GPU-") == ("GPU-1c67", 0)
    assert identify({"instance": "a:1"}, candidates, "GPU-") == ("a:1", 1)
    assert identify({"h": "n", "i": "0"}, candidates, "GPU-") == ("n~0", 2)


@pytest.mark.parametrize("candidates", CANDIDATES)
@given(series)
def test_queries_and_rows_choose_alike(candidates: tuple[tuple[str, ...], ...], rows: dict[Labels, float]) -> None:
    found = {
        value: dict(each).get("id")
        for each, value in evaluate(identity_expression(Selector("m"), "id", candidates), rows).items()
    }
    wanted = {value: identify(dict(each), candidates) for each, value in rows.items()}
    assert found == {value: identity[0] for value, identity in wanted.items() if identity}


@pytest.mark.parametrize("candidates", CANDIDATES[1:])
@given(series, st.data())
def test_a_query_for_some_gpus_has_just_these(
    candidates: tuple[tuple[str, ...], ...], rows: dict[Labels, float], data: st.DataObject
) -> None:
    whole = identity_expression(Selector("m"), "id", candidates)
    every = {dict(each)["id"] for each in evaluate(whole, rows)}
    chosen = data.draw(st.lists(st.sampled_from(sorted(every)), min_size=1, unique=True)) if every else ["other"]
    part = evaluate(restrict_to_values(whole, "id", tuple(chosen)), rows)
    assert part == {each: value for each, value in evaluate(whole, rows).items() if dict(each)["id"] in chosen}


def test_four_gpus_without_serial_numbers_are_four() -> None:
    mapping = next(each for each in mappings() if each.name == "amd-device-metrics-exporter")
    rows = [
        tuple(sorted({"serial_number": serial, "gpu_id": str(index), "hostname": host}.items()))
        for serial in ("N/A", "0") for host in ("n1", "n2") for index in range(4)
    ]  # fmt: skip
    for serial in ("N/A", "0"):
        found = RowReader(mapping).read([row for row in rows if ("serial_number", serial) in row])
        assert len({row["uuid"] for row in found}) == 8
        assert {row["identified_by"] for row in found} == {"hostname/gpu_id"}


def test_queries_are_as_short_as_the_identities_allow() -> None:
    mapping = next(each for each in mappings() if each.name == "dcgm-exporter")
    plain = [{"uuid": "GPU-1"}, {"uuid": "GPU-2"}]
    indirect = {"uuid": "a:1~0", "identified_by": "instance/gpu"}
    selector = Selector("m")
    assert str(mapping.with_identities(plain).relabel(selector, ["uuid"])).count("Selector") == 1
    assert str(mapping.with_identities([indirect]).relabel(selector, ["uuid"])).count("Selector") == 1
    assert str(mapping.with_identities([*plain, indirect]).relabel(selector, ["uuid"])).count("Selector") == 2
    assert mapping.with_identities([]) is mapping
