"""Writes docs/cost.md: what a job costs where, with the ranking by hour beside the one by work.

python docs/build_cost.py            writes it
python docs/build_cost.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

from generated_page import table, write_or_check
from gpu_advisor.cost.catalogue import builtin_catalogue
from gpu_advisor.cost.offer_ranking import JobRequirements, RankedOffer, rank_offers
from gpu_advisor.cost.offer_throughput import PEAK_TFLOPS, WorkRate
from gpu_advisor.cost.offers import parse_exact_gpu

PAGE = Path(__file__).parent / "cost.md"
COMMAND = "python docs/build_cost.py"

#: As of when retirement is judged here: the page must not change by itself.
DAY = date(2026, 11, 21)

#: ResNet-50 v1.5 in mixed precision, images a second: https://github.com/NVIDIA/DeepLearningExamples/blob/
#: 291f0d02e815b148fa5c2b81bf07aa3552142895/PyTorch/Classification/ConvNets/resnet50v1.5/README.md
RESNET = (("V100-16GB", 1, 1200.0), ("V100-32GB", 8, 8056.0), ("A100-80GB", 1, 2470.0), ("A100-80GB", 8, 16621.0))
IMAGES = 90 * 1_281_167  # 90 epochs of ImageNet

TEXT = f"""# What a job costs, and where it costs least

Made by `{COMMAND}`: do not edit.

    gpu-advisor cost --samples 115m --rate V100-16GB=1200 --rate A100-80GB=2470
    gpu-advisor cost --samples 1e9 --profile a100.profile.json --spot --deadline 24 --budget 500
    gpu-advisor cost --samples 115m --rate 8xA100-80GB=16621 --now p3.2xlarge --rate V100-16GB=1200 --exit-code
    gpu-advisor cost --gpu-hours 2000 --gpu H100 --min-gpus 8 --provider aws --provider gcp
    gpu-advisor cost --list --memory 40GiB --region us-east-1

An instance with a dearer hour is often the cheaper one, because it does more in the hour. So candidates are ordered by
what a unit of work costs: price of an hour / (throughput x 3600). Throughput comes from you (`--rate`, of one GPU, of
several, or of an instance type) or from profiles of [`gpu-advisor probe`](calibration.md). What was measured on one GPU
does not hold for eight, nor what was measured on 80 GB for 40 GB: where a throughput is not known the candidate is
"unknown" and not proposed, until you give it, or `--scaling` (speed on n GPUs beside n times one), or ask for
`--estimate-throughput`.

Every candidate that cannot do the job says all that it failed on (`--all`): retired, provider, region, type, memory,
number of GPUs, no spot price, deadline, budget, unknown throughput. With `--instances 4` the job runs on four of one
type, and a throughput is one of all their GPUs.

| exit code | means |
| --- | --- |
| 0 | there is a proposal |
| 1 | nothing can do the job, or the question cannot be answered as it is |
| 2 | wrongly called |
| 3 | with `--exit-code`: something is cheaper than `--now` |
| 4 | something might do the job, but no throughput is known |

## By the hour, or by the work: ResNet-50

NVIDIA publishes [how fast ResNet-50 trains][resnet] in mixed precision on its own machines. 90 epochs of ImageNet are
{IMAGES / 1e6:.1f} million images. At the catalogue's prices on demand:

"""

TEXT_AFTER_TABLE = """
Hosts in a cloud may feed the GPUs slower than NVIDIA's own: probe before you commit to a large job.

[resnet]: https://github.com/NVIDIA/DeepLearningExamples/blob/291f0d02e815b148fa5c2b81bf07aa3552142895/PyTorch/Classification/ConvNets/resnet50v1.5/README.md#training-performance-results

## Spot instances

`--spot` adds them. They are taken away at times, and what was done since the last checkpoint is done again:
`--interruption 0.1` reckons with a tenth of the work done twice, and the job takes as much longer. The figure is yours
to know; the answer repeats it.

## Estimates

With `--estimate-throughput`, what is not known is put in proportion to the peak of the nearest GPU whose throughput is.
Jobs come near to their peak in different measure, so it may be wrong by a factor. It is marked `~`, in JSON
`throughput_estimated`, and says what it was made of. Peaks are dense 16-bit tensor TFLOPS of NVIDIA's data sheets:

"""

CATALOGUE = """
## The catalogue

Comes with the program: a few regions of three providers, each row with its source. Prices change, and the shipped ones
are old by the time you read this: rows whose date is more than `cost.catalogue_stale_days` (90) ago are told with each
answer.

"""

TEXT_AFTER_CATALOGUE = """
Source: [SkyPilot's catalogue](https://github.com/skypilot-org/skypilot-catalog), at the commit in each row's `source`.
The date is the day that a price is known not to be older than, since the commits' own are not known: AWS, the
[cut of GPU prices in June 2025](https://www.usage.ai/blogs/aws/ai-ml-cost/llm-cost-optimization-aws/), which it has;
Google, the [release of A3 Ultra](https://github.com/GoogleCloudPlatform/hpc-toolkit/releases/tag/v1.44.1), which it
has; Azure, [a discussion that quotes its rows](https://github.com/skypilot-org/skypilot-catalog/pull/79).

Where the source disagrees with itself, the row is not here: A100-80GB in Google's us-central1 and europe-west4 (spot
above the price on demand), H100 in us-central1 (half of us-east4), A4 (the host for nothing), P5e (no price). Two are
mended: Azure's ND96isr_H100_v5 has [eight GPUs](https://glennklockwood.com/garden/nodes/azure-nd-h100-v5), not twelve,
and a spot price that equals the one on demand there means that none is known. n1-standard-8 is a twelfth of
n1-standard-96: N1 is priced by vCPU. A spot price is the median of a region's zones. Not in the source, and so not
here: Azure's ND96isr_H200_v5; Azure sells no L4. Put in by `--catalogue`, or refreshed, they are judged as all others.

### Your own prices

`--catalogue FILE`, or `cost.catalogue` in the settings: CSV with the columns of the shipped file, or YAML. A row
replaces the shipped one of the same provider, region, instance type and GPUs. Machines of your own have a price for the
hour of one GPU; their provider and region are `on-premise`:

```yaml
instances:
  - {provider: aws, region: us-east-1, instance_type: p5.48xlarge, gpu_type: H100, gpu_count: 8, gpu_memory_gib: 80,
     price_per_hour: 39.8, date: 2026-11-01, source: our contract}
on_premise:
  - {name: rack-7, gpu_type: A100-80GB, gpu_count: 8, price_per_gpu_hour: 1.10, date: 2026-11-01}
```

All prices are taken to be in one currency; those shipped are in US dollars. A price of 0, a negative or a missing one
is refused with file and line: unknown is not free.

### Refreshing

    gpu-advisor cost --refresh-from vms.csv --provider aws --date 2026-11-20 --out prices.csv
    gpu-advisor cost --samples 115m --rate V100-16GB=1200 --catalogue prices.csv

Takes SkyPilot's `vms.csv` of aws, gcp or azure (`catalogs/v8/<provider>/vms.csv`; `--region` keeps the file small).
Lines with prices of 0, missing, negative or contradictory ones are refused one by one and counted.

### Retired types

Known with day and source, never proposed; asked for by name (`--instance`, `--now`), they say so.

"""


def ranking() -> list[RankedOffer]:
    """All for which a published throughput is known, the cheapest hour of a type first."""
    rates = tuple(
        WorkRate(speed, "published", gpu=parse_exact_gpu(gpu), gpu_count=count) for gpu, count, speed in RESNET
    )
    found: dict[str, RankedOffer] = {}
    for each in rank_offers(JobRequirements(rates, IMAGES), builtin_catalogue(), DAY).feasible:
        found.setdefault(each.offer.instance_type, each)
    return sorted(found.values(), key=lambda each: each.offer.price_per_hour)


def resnet() -> list[str]:
    found = ranking()
    by_work = sorted(found, key=lambda each: each.cost_per_unit or 0.0)
    rows = [
        (
            each.offer.instance_type, f"{each.offer.gpu_count} x {each.offer.gpu}", f"{each.throughput.per_second:g}",
            f"{each.offer.price_per_hour:.2f}", str(number), f"{(each.cost_per_unit or 0) * 1e6:.3f}",
            str(by_work.index(each) + 1), f"{each.hours or 0:.1f}", f"{each.cost or 0:.2f}",
        )
        for number, each in enumerate(found, 1)
    ]  # fmt: skip
    head = ("instance type", "GPUs", "images/s", "$ an hour", "rank by hour", "$ a million images", "rank by work",
            "hours", "$ in all")  # fmt: skip
    first, cheapest = found[0], by_work[0]
    more = (first.cost_per_unit or 0) / (cheapest.cost_per_unit or 1) - 1
    said = (
        f"\nThe cheapest hour ({first.offer.instance_type}) does the job for {more:.0%} more than the cheapest work "
        f"({cheapest.offer.instance_type}), and takes {(first.hours or 0) / (cheapest.hours or 1):.1f} times as long."
    )
    return [*table(head, rows), said]


def catalogue() -> list[str]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in builtin_catalogue().offers:
        if not builtin_catalogue().retirement(each.provider, each.instance_type, DAY):
            found[each.provider, f"{each.gpu}"].append(each.instance_type)
    dates = {each.provider: each.dated for each in builtin_catalogue().offers}
    rows = [
        (provider, str(dates[provider]), gpu, ", ".join(dict.fromkeys(types)))
        for (provider, gpu), types in sorted(found.items())
    ]
    lines: list[str] = table(("provider", "not older than", "GPU", "instance types"), rows)
    return lines


def retired() -> list[str]:
    rows = [(each.instance_type, str(each.retired_on), each.source) for each in builtin_catalogue().retired]
    lines: list[str] = table(("type", "since", "source"), rows)
    return lines


def text() -> str:
    """The page."""
    peaks = table(("GPU", "TFLOPS"), [(name, f"{peak:g}") for name, peak in sorted(PEAK_TFLOPS.items())])
    parts = [TEXT.rstrip("\n"), "", *resnet(), TEXT_AFTER_TABLE.rstrip("\n"), "", *peaks, CATALOGUE.rstrip("\n"), ""]
    parts += [*catalogue(), TEXT_AFTER_CATALOGUE.rstrip("\n"), "", *retired()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, text(), COMMAND))
