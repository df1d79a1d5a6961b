"""`gpu-advisor cost`: answers, their formats, exit codes, and the errors of typing mistakes."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpu_advisor.calibration.profile import Measurement, Profile, write_profile
from gpu_advisor.cli import cli
from gpu_advisor.cost.catalogue import read_catalogue
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.profile_rates import rates_from_profiles

RESNET = ("--samples", "115.2m", "--rate", "V100-16GB=1200", "--rate", "A100-80GB=2470", "--rate", "8xA100-80GB=16621")
DATE = ("--date", "2026-11-21")


def cost(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["cost", *DATE, *arguments], standalone_mode=False)


def code(*arguments: str) -> int:
    found = cost(*arguments)
    assert found.exception is None, found.exception
    return int(found.return_value)


def document(*arguments: str) -> dict[str, Any]:
    found = cost(*arguments, "--format", "json")
    assert found.exception is None, found.exception
    reported = json.loads(found.stdout)
    assert isinstance(reported, dict)
    return reported


def profile(gpu_type: str, rate: float, workload: str = "resnet", memory: int | None = None) -> Profile:
    sizes = [Measurement(batch_size=size, peak_memory_bytes=size << 30, samples_per_second=rate * size / 16)
             for size in (8, 16)]  # fmt: skip
    return Profile(
        gpu_type=gpu_type, workload=workload, precision="bfloat16", memory_kind="driver", device_memory_bytes=memory,
        created_timestamp_seconds=1.7e9, measurements=tuple(sizes),
    )  # fmt: skip


def test_the_answer_for_people_and_for_programs_is_the_same() -> None:
    best = document(*RESNET)["best"]
    assert (best["instance_type"], best["region"]) == ("1x_A100-80GB-SXM_SECURE", "any")
    assert best["cost"] == pytest.approx(115.2e6 / 2470 / 3600 * 1.79)
    shown = cost(*RESNET).stdout
    assert shown.splitlines()[1].split()[:2] == ["1x_A100-80GB-SXM_SECURE", "any"]
    assert f"{best['cost']:.2f}" in shown
    rows = list(csv.DictReader(io.StringIO(cost(*RESNET, "--format", "csv").stdout)))
    assert rows[0]["instance_type"] == best["instance_type"]
    assert len(rows) == len(document(*RESNET)["candidates"])
    assert "retired on 2025-09-30" in next(row for row in rows if row["instance_type"] == "Standard_NC6s_v3")["failed"]


def test_what_is_used_now_is_compared() -> None:
    reported = document(*RESNET, "--now", "p3.2xlarge@us-west-2")
    assert reported["saved_ratio"] == pytest.approx(1 - (1.79 / 2470) / (3.06 / 1200))
    assert "72% less" in cost(*RESNET, "--now", "p3.2xlarge").stdout
    assert code(*RESNET, "--now", "p3.2xlarge", "--exit-code") == 3
    assert code(*RESNET, "--now", "1x_A100-80GB_SECURE", "--exit-code") == 0
    assert code(*RESNET, "--provider", "azure", "--now", "NC24ads_A100_v4", "--exit-code") == 0
    assert "provider aws" not in cost(*RESNET, "--now", "p3.2xlarge", "--provider", "azure").stdout
    spot = document(*RESNET, "--now", "p3.2xlarge", "--now-spot")
    assert spot["now"]["spot"]
    assert spot["saved_ratio"] < 0
    assert "as cheap as any" in cost(*RESNET, "--now", "p3.2xlarge", "--now-spot").stdout
    retired = cost(*RESNET, "--now", "NC6s_v3").stdout
    assert "Now, Standard_NC6s_v3 in" in retired
    assert "retired on 2025-09-30" in retired


def test_old_prices_are_reported_with_each_answer(tmp_path: Path) -> None:
    assert "Old prices: aws 2025-06-01 (538 days), azure" in cost(*RESNET).stdout
    assert [each["provider"] for each in document(*RESNET)["stale"]] == ["aws", "azure", "gcp"]
    csv_answer = cost(*RESNET, "--format", "csv")
    assert "Old prices" not in csv_answer.stdout
    assert "Old prices" in csv_answer.stderr
    settings = tmp_path / "advisor.yml"
    settings.write_text("cost: {catalogue_stale_days: 3000}\n", encoding="utf-8")
    assert "Old prices" not in cost(*RESNET, "--config", str(settings)).stdout
    assert "aws" not in cost(*RESNET, "--provider", "azure").stdout


def test_nothing_feasible_says_what_failed() -> None:
    found = cost(*RESNET, "--deadline", "0.5", "--budget", "20", "--gpu", "A100-80GB", "--max-gpus", "1", "--all")
    assert "Nothing fits the job" in found.stdout
    assert "the deadline is 0.5 h; costs 47.59, the budget is 20.00" in found.stdout
    assert found.return_value == 1


def test_without_throughput_it_cannot_tell() -> None:
    found = cost("--samples", "1e9", "--rate", "L4=900", "--min-gpus", "8")
    assert "Insufficient data: 52 match the job" in found.stdout
    assert found.return_value == 4
    assert code("--samples", "1e9", "--rate", "L4=900", "--min-gpus", "8", "--estimate-throughput") == 0
    assert (
        "~: estimated from peak TFLOPS" in cost("--samples", "1e9", "--rate", "L4=900", "--estimate-throughput").stdout
    )


def test_a_retired_type_asked_for_says_so() -> None:
    found = cost("--samples", "1e6", "--rate", "NC6s_v3=1200", "--instance", "NC6s_v3")
    assert found.return_value == 1
    assert "Standard_NC6s_v3 in eastus: retired on 2025-09-30 (https://" in found.stdout


def test_gpu_hours_are_of_a_type() -> None:
    reported = document("--gpu-hours", "800", "--gpu", "H100", "--min-gpus", "8", "--provider", "aws")
    assert (reported["best"]["instance_type"], reported["best"]["hours"]) == ("p5.48xlarge", pytest.approx(100))
    assert reported["best"]["cost"] == pytest.approx(5504)
    assert "per GPU hour" in cost("--gpu-hours", "800", "--gpu", "H100").stdout


def test_several_instances_of_a_type() -> None:
    asked = ("--samples", "1e9", "--rate", "16xH100=55000", "--instances", "2", "--region", "us-west-2")
    best = document(*asked)["best"]
    assert (best["instance_type"], best["price_per_hour"]) == ("p5.48xlarge", pytest.approx(2 * 55.04))
    assert best["hours"] == pytest.approx(1e9 / 55000 / 3600)
    assert "2 x p5.48xlarge  us-west-2  16 x H100" in cost(*asked).stdout
    assert document("--samples", "1e9", "--rate", "p5.48xlarge=30000", "--instances", "2")["best"] is None


def test_spot_instances_with_an_allowance() -> None:
    asked = (
        "--samples",
        "1e9",
        "--rate",
        "8xH100=30000",
        "--instance",
        "p5.48xlarge",
        "--region",
        "us-west-2",
        "--spot",
    )
    best = document(*asked, "--interruption", "0.5")["best"]
    assert best["spot"]
    assert best["hours"] == pytest.approx(1e9 / 30000 / 3600 * 1.5)
    assert not document(*asked, "--interruption", "4")["best"]["spot"]


def test_own_rows_come_from_the_option_or_the_settings(tmp_path: Path) -> None:
    own, settings = tmp_path / "own.yaml", tmp_path / "advisor.yml"
    own.write_text(
        "on_premise: [{name: rack, gpu_type: A100-80GB, gpu_count: 8, price_per_gpu_hour: 0.5, date: 2026-11-01}]\n",
        encoding="utf-8",
    )
    settings.write_text(f"cost: {{catalogue: {own}}}\n", encoding="utf-8")
    for option in (("--catalogue", str(own)), ("--config", str(settings))):
        best = document(*RESNET, *option)["best"]
        assert (best["provider"], best["instance_type"], best["price_per_hour"]) == ("on-premise", "rack", 4.0)


def test_profiles_say_how_fast(tmp_path: Path) -> None:
    paths = []
    for number, each in enumerate([profile("Tesla V100-SXM2-16GB", 1200), profile("NVIDIA A100-SXM4-80GB", 2470)]):
        paths.append(tmp_path / f"{number}.profile.json")
        write_profile(each, paths[-1])
    given = [word for path in paths for word in ("--profile", str(path))]
    reported = document("--samples", "115.2m", *given)
    assert reported["best"]["instance_type"] == "1x_A100-80GB-SXM_SECURE"
    assert "profile of resnet on NVIDIA A100-SXM4-80GB, bfloat16, batch 16" in reported["best"]["throughput_basis"]
    assert "--tokens-per-sample" in str(cost("--tokens", "1b", *given).exception)
    tokens = document("--tokens", "1b", "--tokens-per-sample", "2048", *given)
    assert tokens["best"]["units_per_second"] == pytest.approx(2470 * 2048)


def test_profiles_that_do_not_say_enough() -> None:
    with pytest.raises(CostError, match="several workloads"):
        rates_from_profiles([profile("L4", 1), profile("L4", 1, "other")])
    with pytest.raises(CostError, match="memory size"):
        rates_from_profiles([profile("Tesla V100", 1)])
    (rate,) = rates_from_profiles([profile("Tesla V100", 1, memory=16945512448)])
    assert str(rate.gpu) == "V100-16GB"


def test_the_catalogue_is_listed() -> None:
    found = cost("--list", "--memory", "100GiB", "--region", "us-east-1")
    assert [line.split()[2] for line in found.stdout.splitlines()[1:-1]] == ["p5en.48xlarge", "p6-b200.48xlarge"]
    rows = list(csv.DictReader(io.StringIO(cost("--list", "--gpu", "T4", "--format", "csv").stdout)))
    assert {row["gpu_type"] for row in rows} == {"T4"}
    assert "NC6s" not in cost("--list").stdout


def test_a_price_list_becomes_a_catalogue(tmp_path: Path) -> None:
    lines, out = tmp_path / "vms.csv", tmp_path / "prices.csv"
    lines.write_text(
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,Generation\n"
        "Standard_NC24ads_A100_v4,A100-80GB,1,24.0,220,A100-80GB,3.0,0.44,eastus,V2\n"
        "Standard_NC48ads_A100_v4,A100-80GB,2,48.0,440,A100-80GB,0.0,0.88,eastus,V2\n",
        encoding="utf-8",
    )
    found = cost("--refresh-from", str(lines), "--provider", "azure", "--out", str(out), "--source", "a quote")
    assert "1 instance types by region, of 2 rows with GPUs\n1 rows rejected: price must be above 0" in found.stdout
    best = document(*RESNET, "--provider", "azure", "--catalogue", str(out))["best"]
    assert (best["price_per_hour"], best["dated"], best["source"]) == (3.0, "2026-11-21", "a quote")
    assert "--provider" in str(cost("--refresh-from", str(lines)).exception)
    assert "give the path" in str(
        cost("--refresh-from", str(tmp_path / "no.csv"), "--provider", "aws", "--out", str(out)).exception
    )


def test_the_page_is_right(tmp_path: Path) -> None:
    """Its YAML is read, and its commands that need no file are answered."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "cost.md").read_text(encoding="utf-8")
    own = tmp_path / "own.yaml"
    own.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    assert [each.instance_type for each in read_catalogue(own)] == ["p5.48xlarge", "rack-7"]
    lines = [line.strip() for line in page.splitlines() if line.startswith("    gpu-advisor cost ")]
    asked = [shlex.split(line)[2:] for line in lines if ".json" not in line and ".csv" not in line]
    assert len(asked) >= 4
    for words in asked:
        assert code(*words) in (0, 3), words


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        ((), "no throughput given"),
        (("--rate", "XYZ9=3"), "unknown GPU 'XYZ9'"),
        (("--rate", "A100=3"), "A100-40GB or A100-80GB"),
        (("--rate", "L4=0"), "above 0"),
        (("--rate", "L4"), "WHAT=N"),
        (("--rate", "0xL4=3"), "WHAT=N"),
        (("--rate", "n1-standard-8=3"), "different numbers of GPUs"),
        (("--gpu", "Z80", "--rate", "L4=1"), "unknown GPU 'Z80'"),
        (("--instance", "p3.2xlarg", "--rate", "L4=1"), "did you mean p3.2xlarge"),
        (("--region", "us-east-9", "--rate", "L4=1"), "did you mean us-east-1|did you mean us-east"),
        (("--provider", "awz", "--rate", "L4=1"), "did you mean aws"),
        (("--now", "p4", "--rate", "L4=1"), "unknown instance type 'p4'"),
        (("--now", "p3.2xlarge@mars", "--rate", "L4=1"), "not in the catalogue for mars: use one of us-west-2"),
        (("--samples", "1e9", "--tokens", "1e9", "--rate", "L4=1"), "give one"),
        (("--samples", "0", "--rate", "L4=1"), "above 0"),
        (("--samples", "many", "--rate", "L4=1"), "such as 115m"),
        (("--gpu-hours", "10"), "--gpu H100"),
        (("--budget", "10", "--rate", "L4=1"), "give its size"),
        (("--min-gpus", "4", "--max-gpus", "2", "--rate", "L4=1"), "below --min-gpus"),
        (("--memory", "40", "--rate", "L4=1"), "did you mean 40GiB"),
        (("--catalogue", "none.csv", "--rate", "L4=1"), "give the path of a readable"),
    ],
)
def test_typing_mistakes(arguments: tuple[str, ...], reported: str) -> None:
    found = cost(*arguments)
    assert found.exception is not None
    message = getattr(found.exception, "message", str(found.exception))
    assert any(part in message for part in reported.split("|")), message
