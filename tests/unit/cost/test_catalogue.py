"""What is shipped, and rows of one's own: read, refused, laid over."""

from __future__ import annotations

import contextlib
import re
from datetime import date
from pathlib import Path

import pytest
from gpu_advisor.cost.catalogue import (
    Catalogue,
    builtin_catalogue,
    offers_from_csv,
    offers_from_yaml,
    offers_to_csv,
    read_catalogue,
    stale_prices,
    with_user_catalogue,
)
from gpu_advisor.cost.catalogue_rows import CATALOGUE_COLUMNS
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offers import GpuVariant, parse_exact_gpu, parse_gpu
from hypothesis import given
from hypothesis import strategies as st

HEAD = ",".join(CATALOGUE_COLUMNS)
ROW = "mine,here,big,A100-80GB,8,,96,1000,20,8,2026-11-01,quote"


@pytest.mark.parametrize(
    ("instance_type", "gpu", "count"),
    [
        ("p3.2xlarge", GpuVariant("V100", 16), 1), ("p3.8xlarge", GpuVariant("V100", 16), 4),
        ("g4dn.xlarge", GpuVariant("T4", 16), 1),
        ("a2-highgpu-1g", GpuVariant("A100", 40), 1), ("a2-highgpu-4g", GpuVariant("A100", 40), 4),
        ("n1-standard-8", GpuVariant("T4", 16), 1),
        ("Standard_NC6s_v3", GpuVariant("V100", 16), 1), ("Standard_NC12s_v3", GpuVariant("V100", 16), 2),
        ("Standard_NV6", GpuVariant("M60", 8), 1), ("p5.48xlarge", GpuVariant("H100", 80), 8),
        ("p5en.48xlarge", GpuVariant("H200", 141), 8),
        ("a3-ultragpu-8g", GpuVariant("H200", 141), 8), ("a3-highgpu-8g", GpuVariant("H100", 80), 8),
        ("g2-standard-4", GpuVariant("L4", 24), 1), ("g6.xlarge", GpuVariant("L4", 24), 1),
        ("Standard_ND96isr_H100_v5", GpuVariant("H100", 80), 8),
        ("Standard_NC24ads_A100_v4", GpuVariant("A100", 80), 1),
    ],
)  # fmt: skip
def test_what_is_shipped(instance_type: str, gpu: GpuVariant, count: int) -> None:
    found = [
        each for each in builtin_catalogue().offers if each.instance_type == instance_type and each.gpu_count == count
    ]
    assert found
    assert {each.gpu for each in found} == {gpu}


def test_every_row_is_dated_and_has_a_source() -> None:
    assert all(each.source.startswith("https://") for each in builtin_catalogue().offers)
    assert all(each.source.startswith("https://") for each in builtin_catalogue().retired)
    assert all(date(2020, 1, 1) < each.dated < date(2026, 11, 22) for each in builtin_catalogue().offers)


def test_what_is_written_is_read_again() -> None:
    assert offers_from_csv(offers_to_csv(builtin_catalogue().offers), "again") == builtin_catalogue().offers


def own(tmp_path: Path, text: str, name: str = "own.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_own_rows_replace_those_of_the_same_instance_and_add_others(tmp_path: Path) -> None:
    ours = next(each for each in builtin_catalogue().offers if each.instance_type == "p4de.24xlarge")
    text = f"{HEAD}\n{ROW}\naws,{ours.region},p4de.24xlarge,A100,8,80,96,1152,19.5,,2026-11-01,contract\n"
    found = with_user_catalogue(own(tmp_path, text)).offers
    assert len(found) == len(builtin_catalogue().offers) + 1
    here = [each for each in found if each.key == ours.key]
    assert [(each.price_per_hour, each.spot_price_per_hour, each.source) for each in here] == [(19.5, None, "contract")]


def test_own_machines_have_a_price_by_gpu_hour(tmp_path: Path) -> None:
    text = """
    instances:
      - {provider: cloudy, region: here, instance_type: x, gpu_type: L4, gpu_count: 2, price_per_hour: 1.5,
         date: 2026-11-01, source: quote}
    on_premise:
      - {name: rack-7, gpu_type: A100-80GB, gpu_count: 8, price_per_gpu_hour: 1.25, date: 2026-01-31}
    """
    cloud, rack = read_catalogue(own(tmp_path, text, "own.yaml"))
    assert (cloud.gpu, cloud.price_per_hour) == (GpuVariant("L4", 24), 1.5)
    assert (rack.provider, rack.instance_type, rack.price_per_hour, rack.gpu) == (
        "on-premise", "rack-7", 10.0, GpuVariant("A100", 80),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        (ROW.replace(",20,", ",0,"), "price_per_hour 0 must be above 0"),
        (ROW.replace(",20,", ",-3,"), "price_per_hour -3 must be above 0"),
        (ROW.replace(",20,", ",,"), "price_per_hour is missing"),
        (ROW.replace(",20,", ",nan,"), "not a number"),
        (ROW.replace(",20,", ",inf,"), "not a number"),
        (ROW.replace(",20,", ",cheap,"), "write it as in 3.06"),
        (ROW.replace(",8,2026", ",21,2026"), "spot_price_per_hour 21 is above"),
        (ROW.replace(",8,2026", ",0,2026"), "spot_price_per_hour 0 must be above 0"),
        (ROW.replace("A100-80GB", "A100"), "gpu_memory_gib is missing"),
        (ROW.replace("A100-80GB", "!!"), "not a GPU type"),
        (ROW.replace(",8,,", ",1.5,,"), "gpu_count 1.5 must be an integer"),
        (ROW.replace("2026-11-01", "yesterday"), "write it as in 2026-03-31"),
        (ROW.replace("2026-11-01", ""), "date"),
        (ROW.replace("quote", ""), "source is missing"),
        (f"{ROW}\n{ROW}", "duplicate"),
        (ROW + ",more", "more cells"),
    ],
)  # fmt: skip
def test_rows_that_are_refused_with_their_line(tmp_path: Path, row: str, reported: str) -> None:
    with pytest.raises(CostError, match=reported) as caught:
        read_catalogue(own(tmp_path, f"{HEAD}\n{row}\n"))
    assert "own.csv:" in str(caught.value)


def test_all_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    text = f"{HEAD}\n{ROW.replace(',20,', ',0,')}\n{ROW.replace('big', 'other').replace('quote', '')}\n"
    with pytest.raises(CostError) as caught:
        read_catalogue(own(tmp_path, text))
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "3"]


@pytest.mark.parametrize(
    ("name", "text", "reported"),
    [
        ("own.csv", "InstanceType,Price\n", "header lacks .*--refresh-from"),
        ("own.csv", "", "header lacks"),
        ("own.yaml", "- 1\n", "instances and on_premise"),
        ("own.yaml", "", "instances and on_premise"),
        ("own.yaml", "machines: []\n", "instances and on_premise"),
        ("own.yaml", "instances: 3\n", "must be a list"),
        ("own.yaml", "instances: [3]\n", r"instances\[1\]"),
        ("own.yaml", "on_premise: [{name: r, gpu_type: L4, gpu_count: 1, price_per_gpu_hour: 0, date: 2026-01-01}]\n",
         "price_per_gpu_hour 0 must be above 0"),
        ("own.yaml", "on_premise: [{nam: r}]\n", "unknown key 'nam'"),
        ("own.yaml", "instances: [\n", "not YAML"),
        ("own.yaml", "instances: [{date: 2026-99-99}]\n", "not YAML"),
        ("own.yaml", f"on_premise: [{{name: r, gpu_type: L4, gpu_count: 1{'0' * 400}}}]", "not a number"),
        ("own.csv", f"{HEAD}\n{'x' * 200_000}\n", "not CSV"),
    ],
)  # fmt: skip
def test_files_that_are_no_catalogue(tmp_path: Path, name: str, text: str, reported: str) -> None:
    with pytest.raises(CostError, match=reported):
        read_catalogue(own(tmp_path, text, name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CostError, match="give the path of a readable"):
        read_catalogue(tmp_path / "none.csv")


def test_old_prices_are_reported_by_provider() -> None:
    reported = stale_prices(builtin_catalogue().offers, date(2026, 11, 20), 90)
    assert [each.provider for each in reported if each.days > 90] == ["aws", "azure", "gcp"]
    assert not stale_prices(builtin_catalogue().offers, date(2026, 11, 20), 3650)


def test_prices_dated_in_the_future_are_reported() -> None:
    early = min(each.dated for each in builtin_catalogue().offers).replace(year=2020)
    offers = builtin_catalogue().offers
    assert {each.provider for each in stale_prices(offers, early, 90)} == {each.provider for each in offers}


def test_a_retired_type_is_found_by_either_name() -> None:
    for name in ("NV6", "Standard_NV6", "standard_nv6"):
        assert builtin_catalogue().retirement("azure", name, date(2026, 1, 1))
    assert not builtin_catalogue().retirement("aws", "NV6", date(2026, 1, 1))
    assert not Catalogue(()).retirement("azure", "NV6", date(2026, 1, 1))


@pytest.mark.parametrize(
    ("text", "gpu"),
    [("A100-80GB", GpuVariant("A100", 80)), ("NVIDIA A100-SXM4-40GB", GpuVariant("A100", 40)),
     ("L4", GpuVariant("L4", 24)),
     ("H100-MEGA", GpuVariant("H100", 80)), ("tesla t4", GpuVariant("T4", 16))],
)  # fmt: skip
def test_gpus_as_people_write_them(text: str, gpu: GpuVariant) -> None:
    assert parse_exact_gpu(text) == gpu


def test_a_rate_must_say_which_size() -> None:
    with pytest.raises(CostError, match="A100-40GB or A100-80GB"):
        parse_exact_gpu("A100")
    assert parse_gpu("A100").covers(GpuVariant("A100", 40))


@given(st.text(max_size=200), st.sampled_from(["", HEAD + "\n", f"{HEAD}\n{ROW}\n"]))
def test_any_text_is_read_or_refused(text: str, before: str) -> None:
    for reader in (offers_from_csv, offers_from_yaml):
        with contextlib.suppress(CostError):
            reader(before + text, "any")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters='\n\r"'), max_size=8), min_size=1, max_size=14))
def test_any_row_is_read_or_refused(cells: list[str]) -> None:
    with contextlib.suppress(CostError):
        offers_from_csv(f"{HEAD}\n{','.join(cells)}\n", "any")


def test_no_price_on_the_page_is_older_than_its_row_states() -> None:
    """Prices of a provider were read on several days: a row has the oldest date of the GPU's prices."""
    page = (Path(__file__).parents[3] / "docs/cost.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (\d{4}-\d\d-\d\d) \| (\S+) \| (.+) \|$", page, re.MULTILINE)
    offers = builtin_catalogue().offers
    assert len(rows) > 40
    for provider, day, gpu, types in rows:
        listed = [each for each in offers if (each.provider, f"{each.gpu}") == (provider, gpu)]
        dates = [each.dated for each in listed if each.instance_type in types.split(", ")]
        assert date.fromisoformat(day) == min(dates), (provider, gpu)
