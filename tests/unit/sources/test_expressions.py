"""Expressions: quoting of values, restriction by labels, texts of every form, and the matchers that read them."""

from __future__ import annotations

import string

import pytest
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    ConstantLabel,
    Expression,
    LabelReplace,
    Matcher,
    Ratio,
    Selector,
    Sum,
    Union,
    any_of_values,
    metrics_of,
    restrict_to_values,
    selectors_of,
    subexpressions,
    union,
)
from gpu_advisor.sources.matchers import compile_matchers
from hypothesis import given
from hypothesis import strategies as st

UP, OTHER = Selector("up"), Selector("other", "mean", 60)
NAMES = st.text(string.ascii_letters + string.digits + string.punctuation + " é", min_size=1, max_size=6)


@pytest.mark.parametrize("character", string.punctuation + " \n\té🚀")
@pytest.mark.parametrize("place", ["{}a", "a{}", "a{}b", "{}"])
def test_each_character_of_a_value_means_itself(character: str, place: str) -> None:
    value = place.format(character) if character not in "{}" else place.replace("{}", character)
    matches = compile_matchers([any_of_values("uuid", (value, "other"))])
    assert matches({"uuid": value})
    assert matches({"uuid": "other"})
    for wrong in ("", "a", "b", "ab", "aab", value + "x", "x" + value, f"{value}|other", value[:-1]):
        assert matches({"uuid": wrong}) is (wrong == value)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), NAMES)
def test_a_matcher_of_values_matches_these_and_no_others(values: list[str], other: str) -> None:
    matches = compile_matchers([any_of_values("uuid", tuple(values))])
    assert all(matches({"uuid": value}) for value in values)
    assert matches({"uuid": other}) is (other in values)
    assert not matches({"name": values[0]})


def test_one_value_is_compared_and_several_are_alternatives() -> None:
    assert any_of_values("a", ("x.y",)) == Matcher("a", "=", "x.y")
    assert any_of_values("a", ("x", "y")) == Matcher("a", "=~", "x|y")


@pytest.mark.parametrize(
    ("matchers", "matching"),
    [
        ((), True),
        ((Matcher("a", "=", "1"),), True),
        ((Matcher("a", "=", "1"), Matcher("b", "=", "2")), True),
        ((Matcher("a", "=", "1"), Matcher("b", "=", "3")), False),
        ((Matcher("a", "=", "9"), Matcher("b", "=", "2")), False),
        ((Matcher("a", "!=", "1"),), False),
        ((Matcher("c", "!=", "1"),), True),
        ((Matcher("c", "=", ""),), True),
        ((Matcher("a", "=~", "[0-9]"), Matcher("b", "!~", "[0-9]")), False),
        ((Matcher("c", "=~", ".*"),), True),
        ((Matcher("c", "=~", ".+"),), False),
    ],
)
def test_all_matchers_must_match(matchers: tuple[Matcher, ...], matching: bool) -> None:
    assert compile_matchers(matchers)({"a": "1", "b": "2"}) is matching


# Restriction


def restricted(expression: Expression, *values: str) -> str:
    return to_promql(restrict_to_values(expression, "uuid", values))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (UP, 'up{uuid="a"}'),
        (Selector("up", matchers=(Matcher("job", "=", "x"),)), 'up{job="x",uuid="a"}'),
        (Aggregate("max", ("uuid",), UP), 'max by (uuid) (up{uuid="a"})'),
        (Ratio(UP, OTHER), 'up{uuid="a"} / (avg_over_time(other{uuid="a"}[1m]) != 0)'),
        (Sum((UP, UP, OTHER)), 'up{uuid="a"} + up{uuid="a"} + avg_over_time(other{uuid="a"}[1m])'),
        (Union((UP, OTHER)), 'up{uuid="a"} or avg_over_time(other{uuid="a"}[1m])'),
        (Affine(UP, 2.0), '2 * up{uuid="a"}'),
        (ConstantLabel(UP, "x", "y"), 'label_replace(up{uuid="a"}, "x", "y", "", "")'),
        (LabelReplace(UP, "uuid", "UUID"), 'label_replace(up{UUID="a"}, "uuid", "$1", "UUID", "(?s)(.+)")'),
        (LabelReplace(UP, "name", "NAME"), 'label_replace(up{uuid="a"}, "name", "$1", "NAME", "(?s)(.+)")'),
    ],
)
def test_a_restriction_reaches_every_selector(expression: Expression, text: str) -> None:
    assert restricted(expression, "a") == text
    assert metrics_of(restrict_to_values(expression, "uuid", ("a",))) == metrics_of(expression)


def test_a_restriction_is_translated_to_the_exporters_value() -> None:
    expression = LabelReplace(UP, "uuid", "gpu", "amd-$1-")
    assert restricted(expression, "amd-$1-0") == ('label_replace(up{gpu="0"}, "uuid", "amd-$$1-$1", "gpu", "(?s)(.+)")')


# Forms


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Sum((Ratio(UP, UP), Affine(UP, 2.0), Union((UP, OTHER)), UP)),
         "(up / (up != 0)) + (2 * up) + (up or avg_over_time(other[1m])) + up"),
        (Affine(UP), "up"),
        (Affine(UP, 1.0, 0.0), "up"),
        (Affine(UP, 0.0, 1.0), "0 * up + 1"),
        (Affine(UP, 1.0, 2.5), "up + 2.5"),
        (Affine(UP, 3.0, -1.0), "3 * up - 1"),
        (Affine(UP, 1e15), "1000000000000000.0 * up"),
        (Affine(UP, 999999999999999.0), "999999999999999 * up"),
        (Aggregate("max", (), Ratio(UP, UP)), "max(up / (up != 0))"),
        (Ratio(Sum((UP, UP)), Sum((UP, OTHER))), "(up + up) / ((up + avg_over_time(other[1m])) != 0)"),
        (ConstantLabel(Union((UP, UP)), "part", "$1"), 'label_replace(up or up, "part", "$$1", "", "")'),
    ],
)  # fmt: skip
def test_texts_of_all_forms(expression: Expression, text: str) -> None:
    assert to_promql(expression) == text


def test_parts_are_in_order() -> None:
    expression = Ratio(Sum((UP, OTHER)), Affine(Union((OTHER, UP))))
    assert [each.metric for each in selectors_of(expression)] == ["up", "other", "other", "up"]
    assert subexpressions(UP) == ()
    assert subexpressions(Affine(UP)) == (UP,)
    assert union(UP) == UP
    assert union(UP, OTHER) == Union((UP, OTHER))
