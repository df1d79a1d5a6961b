"""SkyPilot's price lists: what becomes a row, what is refused and counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from gpu_advisor.cost.catalogue import offers_from_csv, offers_to_csv
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offers import GpuVariant
from gpu_advisor.cost.skypilot import ConversionResult, convert_catalogue
from hypothesis import given
from hypothesis import strategies as st

DAY = date(2026, 11, 20)
COMMON = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region"
AWS, AZURE = f"{COMMON},AvailabilityZone,Arch\n", f"{COMMON},Generation\n"
GCP = "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice\n"


def size(mib: int) -> str:
    return f"\"{{'Gpus': [{{'MemoryInfo': {{'SizeInMiB': {mib}}}}}]}}\""


def aws(*lines: str) -> ConversionResult:
    return convert_catalogue(AWS + "\n".join(lines), "aws", DAY, "test")


def line(price: str = "12.24", spot: str = "1.5", zone: str = "az1", kind: str = "p3.8xlarge") -> str:
    return f"{kind},V100,4.0,32.0,244.0,{size(16384)},{price},{spot},us-east-1,{zone},x86_64"


def test_zones_become_a_region_with_the_median_of_their_spot_prices() -> None:
    found = aws(line(spot="1.5", zone="a"), line(spot="9", zone="b"), line(spot="2", zone="c"), line(spot="", zone="d"))
    (offer,) = found.offers
    assert (offer.price_per_hour, offer.spot_price_per_hour, offer.dated) == (12.24, 2.0, DAY)
    assert (offer.gpu, offer.gpu_count, offer.vcpus, offer.memory_gib) == (GpuVariant("V100", 16), 4, 32, 244)
    assert not found.rejected_rows
    assert offers_from_csv(offers_to_csv(found.offers), "again") == found.offers


def test_machines_without_gpus_are_left_out() -> None:
    assert aws("m5.large,,,2.0,8.0,,0.096,0.04,us-east-1,az1,x86_64").rows == 0


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([line("0.0")], "above 0"),
        ([line("")], "missing"),
        ([line("-1")], "above 0"),
        ([line("cheap")], "not a number"),
        ([line(spot="-1")], "above 0"),
        ([line(spot="13")], "above the on-demand price"),
        ([line("12"), line("13", zone="az2")], "differs between zones"),
    ],
)
def test_lines_that_are_refused_and_counted(lines: list[str], why: str) -> None:
    good = line(kind="p3.2xlarge", zone="az9")
    found = aws(*lines, good)
    assert [each.instance_type for each in found.offers] == ["p3.2xlarge"]
    ((reported, count),) = found.rejected_rows
    assert why in reported
    assert count == len(lines)


def test_lines_that_are_there_twice_are_taken_once() -> None:
    found = aws(line(), line())
    assert len(found.offers) == 1
    assert found.rejected_rows == (("duplicate", 1),)


def test_the_same_trouble_is_counted_together() -> None:
    found = aws(line("-1"), line("-2", zone="az2"))
    assert [count for _, count in found.rejected_rows] == [2]


def test_on_gcp_the_host_and_its_accelerators_are_added() -> None:
    text = GCP + "\n".join(
        [
            "a2-highgpu-4g,48.0,340.0,,,,us-central1,us-central1-a,2.95791,1.479",
            "n1-standard-8,8.0,30.0,,,,us-central1,us-central1-a,0.38,0.1",
            "n1-standard-8,8.0,30.0,,,,asia-east2,asia-east2-b,0.5,0.1",
            "a4-highgpu-8g,224.0,3968.0,,,,us-central1,us-central1-a,0.0,0.0",
            f",,,A100,4,{size(40960)},us-central1,us-central1-a,11.73563,5.7364",
            f",,,T4,1,{size(16384)},us-central1,us-central1-a,0.35,0.175",
            f",,,B200,8,{size(184320)},us-central1,us-central1-a,90.2,32.6",
            ",,,tpu-v6e-4,1,tpu-v6e-4,us-central1,us-central1-a,10.8,2.17",
        ]
    )
    found = convert_catalogue(text, "gcp", DAY, "test")
    prices = {
        each.instance_type: (str(each.gpu), each.price_per_hour, each.spot_price_per_hour) for each in found.offers
    }
    assert prices == {"a2-highgpu-4g": ("A100-40GB", 14.69354, 7.2154), "n1-standard-8": ("T4", 0.73, 0.275)}
    assert found.rows == 3  # the list has no price for the host of an A4
    assert [count for _, count in found.rejected_rows] == [1]


def test_on_azure_the_name_has_the_memory() -> None:
    text = AZURE + "\n".join(
        [
            "Standard_NC24ads_A100_v4,A100-80GB,1,24.0,220,A100-80GB,3.673,0.44,eastus,V2",
            'Standard_NC24rs_v3,V100,4,24.0,448,V100,13.46,1.75,eastus,"V1,V2"',
            "Standard_ND96asr_v4,A100,8,96.0,900,A100,27.197,2.99,eastus,V2",
            "Standard_NV4as_v4,Radeon MI25,1,4.0,14,Radeon MI25,0.233,0.02,eastus,V1",
        ]
    )
    found = convert_catalogue(text, "azure", DAY, "test")
    assert [str(each.gpu) for each in found.offers] == ["A100-80GB", "V100-16GB", "A100-40GB"]
    assert "gpu_memory_gib is missing" in found.rejected_rows[0][0]


ROWS = [
    # A line of any cloud, whatever columns it leaves empty: GPU, count, price on demand, spot, region.
    ("gpu_1x_gh200,GH200,1.0,64.0,432.0,2.29,us-east-3," + size(98304) + ",", ("GH200", 1, 2.29, None, "us-east-3")),
    ("gpu-h200,H200,8,128,1600,28.00,eu-west1," + size(144384) + ",11.60", ("H200", 8, 28.0, 11.6, "eu-west1")),
    ("8x_MI300X_SECURE,MI300X,8,,,23.9,EU," + size(196608) + ",", ("MI300X", 8, 23.9, None, "EU")),
    ("BM.GPU.GB200.4,GB200,4,144,960,64,af-1," + size(196608) + ",", ("GB200", 4, 64.0, None, "af-1")),
    ("8x_B200,B200,8,0,0,60,,,", ("B200", 8, 60.0, None, "any")),
    ("A100-sxm,A100-80GB-SXM,1,,,1.79,,,", ("A100-80GB", 1, 1.79, None, "any")),
    ("2x_A6000,RTXA6000,2,,,0.98,kansas," + size(98304) + ",", ("A6000", 2, 0.98, None, "kansas")),  # the sum of both
    ("Standard_NV6ads_A10_v5,A10,0.167,6,55,0.454,eastus,,", ("A10-4.01GB", 1, 0.454, None, "eastus")),
    ("g6f.large,L4,0.125,2,8,0.2,us-east-1," + size(2861) + ",", ("L4-2.79GB", 1, 0.2, None, "us-east-1")),
    ("x,A100,1,8,60,2.0,here,,", ("A100-40GB", 1, 2.0, None, "here")),
    # As in catalogs/v8 of 2026: zero where there is no spot price, GiB in the column of MiB, JSON's quotes, the sum of
    # all GPUs, and suffixes of the name.
    ("1x-L40S-32-65536,L40S,1,32,64,0.60,any," + size(46068) + ",0.00", ("L40S", 1, 0.6, None, "any")),
    ("1x_A100-80GB_SECURE,A100-80GB,1.0,8.0,117.0,1.59,CA," + size(80) + ",1.59", ("A100-80GB", 1, 1.59, 1.59, "CA")),
    ("2x_RTX3070,RTX3070,2,8,60,0.26,CA," + size(8) + ",", ("RTX3070-8GB", 2, 0.26, None, "CA")),
    (
        "n3,A100_80G_PCIE,2.0,60,240,2.8583,CA," + size(81920).replace("'", '""') + ",",
        ("A100-80GB", 2, 2.8583, None, "CA"),
    ),
    ("n3,H100_PCIE_BAREMETAL,1.0,16,192,2.6,CA," + size(81920).replace("'", '""') + ",", ("H100", 1, 2.6, None, "CA")),
    ("lambdalabs__8xH100_80GB,H100,8,208,1800,23.92,US," + size(655360) + ",", ("H100", 8, 23.92, None, "US")),
]


@pytest.mark.parametrize(("row", "found"), ROWS)
def test_any_clouds_list_whatever_is_empty(row: str, found: tuple[object, ...]) -> None:
    """With columns in another order, and one memory figure a card."""
    head = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice\n"
    cpu, tpu = "cpu-d3,,0,4,16,0.0992,eu-north1,,", "tpu-v5e,tpu-v5litepod-8,1,,,9.6,us-west4,,"
    result = convert_catalogue(f"{head}{cpu}\n{row}\n{tpu}", "nebius", DAY, "test")
    (offer,) = result.offers
    assert not result.rejected_rows
    assert (str(offer.gpu), offer.gpu_count, offer.price_per_hour, offer.spot_price_per_hour, offer.region) == found
    assert offers_from_csv(offers_to_csv(result.offers), "again")[0].gpu_count == offer.gpu_count


def test_columns_that_are_absent() -> None:
    text = "InstanceType,AcceleratorName,AcceleratorCount,Price,Region\ngpu_1x,H100,1,2.5,here\n"
    (offer,) = convert_catalogue(text, "lambda", DAY, "test").offers
    assert (offer.provider, str(offer.gpu), offer.vcpus, offer.spot_price_per_hour) == ("lambda", "H100", None, None)


@pytest.mark.parametrize(
    "respell", [lambda header: "\ufeff" + header, str.lower, lambda header: header.replace(",", " , ")]
)
def test_headers_as_spreadsheets_write_them(respell: Callable[[str], str]) -> None:
    row = line()
    found = convert_catalogue(respell(AWS.strip()) + "\n" + row, "aws", DAY, "test")
    assert found == aws(row)


def test_only_the_regions_asked_for() -> None:
    text = AWS + line() + "\n" + line().replace("us-east-1", "eu-west-1")
    assert {each.region for each in convert_catalogue(text, "aws", DAY, "test", frozenset({"eu-west-1"})).offers} == {
        "eu-west-1"
    }


@pytest.mark.parametrize(
    ("text", "provider", "reported"),
    [("a,b\n1,2\n", "aws", "header lacks .*vms.csv"), ("", "gcp", "header lacks"), (AWS, "AWS Inc.", "not a provider")],
)
def test_files_that_are_none(text: str, provider: str, reported: str) -> None:
    with pytest.raises(CostError, match=reported):
        convert_catalogue(text, provider, DAY, "test")


CELLS = st.sampled_from(
    ["", "0", "-1", "1", "nan", "1e400", "A100", "a2-highgpu-1g", "n1-standard-8", "T4", "here", "x"]
)


@given(st.sampled_from(["aws", "azure", "gcp"]), st.lists(st.lists(CELLS, max_size=12), max_size=6))
def test_any_lines_are_converted_or_refused(provider: str, lines: list[list[str]]) -> None:
    head = {"aws": AWS, "azure": AZURE, "gcp": GCP}[provider]
    found = convert_catalogue(head + "\n".join(",".join(cells) for cells in lines), provider, DAY, "test")
    assert all(each.price_per_hour > 0 for each in found.offers)
    assert sum(count for _, count in found.rejected_rows) + len(found.offers) <= found.rows
