"""Writes docs/cost.md: job costs by instance, ranked by hourly price and by cost of the work.

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
from gpu_advisor.cost.list_prices import CURRENCY, shipped_list_prices
from gpu_advisor.cost.offer_ranking import JobRequirements, RankedOffer, rank_offers
from gpu_advisor.cost.offer_throughput import PEAK_TFLOPS, WorkRate
from gpu_advisor.cost.offers import InstanceOffer, parse_exact_gpu

PAGE = Path(__file__).parent / "cost.md"
COMMAND = "python docs/build_cost.py"

#: Reference date for retirement, fixed so that the page does not change over time.
DAY = date(2026, 11, 21)

#: ResNet-50 v1.5 in mixed precision, images a second: https://github.com/NVIDIA/DeepLearningExamples/blob/
#: 291f0d02e815b148fa5c2b81bf07aa3552142895/PyTorch/Classification/ConvNets/resnet50v1.5/README.md
RESNET = (("V100-16GB", 1, 1200.0), ("V100-32GB", 8, 8056.0), ("A100-80GB", 1, 2470.0), ("A100-80GB", 8, 16621.0))
IMAGES = 90 * 1_281_167  # 90 epochs of ImageNet

TEXT = f"""# What a job costs, and where it costs least

Which cloud instance, or machine of your own, does a piece of work for the least money: by cost per unit of work, not by
hourly price. Made by `{COMMAND}`: do not edit.

    gpu-advisor cost --samples 115m --rate V100-16GB=1200 --rate A100-80GB=2470
    gpu-advisor cost --samples 1e9 --profile a100.profile.json --spot --deadline 24 --budget 500
    gpu-advisor cost --samples 115m --rate 8xA100-80GB=16621 --now p3.2xlarge --rate V100-16GB=1200 --exit-code
    gpu-advisor cost --gpu-hours 2000 --gpu H100 --min-gpus 8 --provider aws --provider gcp
    gpu-advisor cost --list --memory 40GiB --region us-east-1

An instance with a higher hourly price is often cheaper overall, because it does more work per hour. So candidates are
ordered by the cost of a unit of work: hourly price / (throughput x 3600). Throughput comes from you (`--rate`, of one
GPU, of several, or of an instance type) or from profiles of [`gpu-advisor probe`](calibration.md). What was measured on
one GPU does not hold for eight, nor what was measured on 80 GB for 40 GB: where a throughput is not known the candidate
is "unknown" and not proposed, until you give it, or `--scaling` (scaling efficiency: throughput on n GPUs divided by n
times that of one), or use `--estimate-throughput`.

`--all` lists rejected candidates with all reasons: retired, provider, region, type, memory,
number of GPUs, no spot price, deadline, budget, unknown throughput. With `--instances 4` the job runs on four of one
type, and `--rate` is the total over all their GPUs.

| exit code | meaning |
| --- | --- |
| 0 | there is a proposal |
| 1 | no candidate can do the job, a GPU, instance type, provider or region is unknown, or a file is unusable |
| 2 | usage error: an option is unknown, missing, malformed or contradicts another |
| 3 | with `--exit-code`: something is cheaper than `--now` |
| 4 | candidates exist, but their throughput is unknown |

## Hourly price vs. cost of the job: ResNet-50

NVIDIA publishes [how fast ResNet-50 trains][resnet] in mixed precision on its own machines. 90 epochs of ImageNet are
{IMAGES / 1e6:.1f} million images. At the catalogue's on-demand prices of AWS, Azure and Google:

"""

TEXT_AFTER_TABLE = """
Hosts in a cloud may feed the GPUs slower than NVIDIA's own: probe before you commit to a large job.

[resnet]: https://github.com/NVIDIA/DeepLearningExamples/blob/291f0d02e815b148fa5c2b81bf07aa3552142895/PyTorch/Classification/ConvNets/resnet50v1.5/README.md#training-performance-results

## Spot instances

`--spot` adds them. Interruptions repeat the work since the last checkpoint: `--interruption 0.1` assumes that a tenth
of the work is done twice, and the job takes that much longer. Use your own figure; the output repeats it.

## Estimates

With `--estimate-throughput`, an unknown throughput is scaled by peak TFLOPS from the nearest GPU with a known one. Jobs
reach different shares of their peak, so an estimate may be off by a factor. It is marked `~`, in JSON
`throughput_estimated`, and names its basis. Peaks are dense 16-bit tensor TFLOPS, from the one list of GPU types
(`gpu_advisor/hardware/gpu_table.py`, with its sources):

"""

CATALOGUE = """
## The catalogue

The built-in catalogue has a few regions of each provider, each row with the source that was read and its date; what has
no source is not in it. Prices change, so the built-in ones may be outdated: the output warns about rows older than
`cost.catalogue_stale_days` (90). A card has one memory figure in all lists: clouds write 22.35 or 24, 192 or 186 GiB
for the same card. Region `any`: the provider has one price for all.

"""

TEXT_AFTER_CATALOGUE = """
Source: [SkyPilot's catalogue](https://github.com/skypilot-org/skypilot-catalog), at the commit in each row's `source`.
Each price is at least as recent as its date (the commit dates are unknown); the table has the oldest date of the GPU's
prices. The dates follow from: AWS, the
[cut of GPU prices in June 2025](https://www.usage.ai/blogs/aws/ai-ml-cost/llm-cost-optimization-aws/), which it has;
Google, the [release of A3 Ultra](https://github.com/GoogleCloudPlatform/hpc-toolkit/releases/tag/v1.44.1), which it
has; Azure, [a discussion that quotes its rows](https://github.com/skypilot-org/skypilot-catalog/pull/79); OCI, the
[pull request that adds its file](https://github.com/skypilot-org/skypilot-catalog/pull/194). Nebius' prices are those
that a reviewer [read from its billing API](https://github.com/skypilot-org/skypilot/pull/9829); CoreWeave's, Lambda's
and RunPod's were transcribed from their pages, AWS' g5 and g6e from Vantage, and Azure's NC48ads, NC96ads and NC80adis
from its price list, on the days in the rows. Oracle's list price of an H200 is 10 dollars
an hour, as [SkyPilot's catalogue](https://github.com/skypilot-org/skypilot-catalog/pull/194) and others have it; a
licensing adviser's [about 98 dollars](https://oraclelicensingexperts.com/blog/oracle-cloud-gpu-skus-pricing/) for eight
is an estimate.

Rows on which the source contradicts itself are left out: A100-80GB in Google's us-central1 and europe-west4 (spot
above the on-demand price), H100 in us-central1 (half of us-east4), A4 (host priced at zero), P5e (no price). Two are
fixed: Azure's ND96isr_H100_v5 has [eight GPUs](https://glennklockwood.com/garden/nodes/azure-nd-h100-v5), not twelve,
and a spot price that equals the on-demand price there means that none is known. n1-standard-8 is a twelfth of
n1-standard-96: N1 is priced by vCPU. A spot price is the median of a region's zones. Azure's NCads_H100_v5 have the
H100 NVL (94 GB). Left out: Azure's ND96isr_H200_v5, for which two lists of 2026 differ by 30 %, and its MI300X and
GB200, for which no page of Azure's with a price was found; its NC48ads, NC96ads and NC80adis outside eastus, where the
price rose by 26 to 30 % after 2024; Azure sells no L4. Rows added by `--catalogue` or a refresh are ranked like all
others.

### Your own prices

`--catalogue FILE`, or `cost.catalogue` in the settings: CSV with the columns of the shipped file, or YAML. A row
replaces the shipped one of the same provider, region, instance type and GPUs. On-premise machines are priced per
GPU-hour; their provider and region are `on-premise`:

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

Takes SkyPilot's `vms.csv` of any cloud (`catalogs/v8/<provider>/vms.csv`: aws, azure, gcp, lambda, nebius, oci, runpod,
vast and others; `--region` keeps the file small). Only type, accelerator, count and price must be filled in. A
fractional GPU (0.167 of an A10) counts as one GPU with that fraction of the memory; TPUs and other accelerators are
left out. Lines with prices of 0, missing, negative or contradictory ones are refused one by one and counted.

## Fleet cost and potential savings

A GPU whose price is not in `cost.gpu_price_per_hour` is estimated at its list price: the median on-demand price per GPU
over all offers of exactly that GPU (type and memory size, whole cards) in the shipped catalogue, with the rest of the
instance in it. All amounts based on it are marked *estimate, list prices of DATE*, in the checklist, on
recommendations, in CSV (`estimated`) and in metrics. List prices are in US dollars and are never converted: with
another `cost.currency`, a GPU without a price has none. `cost.list_prices: false` turns the estimate off.

```yaml
cost:
  currency: USD
  gpu_price_per_hour: {H100: 2.40, A100-40GB: 1.10, A100-80GB: 1.60, H100 PCIe: 1.90}
  budget_per_hour: 60
```

A price can be set for a type (`H100`), with its memory (`A100-80GB`) or form (`H100 PCIe`), or for the driver's own
name; the most specific one wins. Where two differ and the driver's name does not say which one applies, the
price is unknown.

### Waste by cause

A recommendation's potential savings are given per hour and per month (730 hours: 365 x 24 / 12). They follow from the
signal that shows the cause, as a share of each GPU's time:

| cause | share of the GPU's time wasted |
| --- | --- |
| lost GPU, hung job | all |
| idle GPU | all; in full if a whole node, pod or Slurm job can be released, else the price is an upper bound |
| pool too large | the released GPUs |
| thermal or power throttling | at most (1 - clock of its peers, or of its maximum if peers are as slow) x busy time |
| waiting for data | wait per step x time in steps, as the job reports it; else at most the idle time |
| communication | at most the reported wait, since transfers may overlap; else at most the idle SMs |
| busy but empty | at most 1 - SM activity; where SM activity is not published, up to the whole GPU |
| small batch | at most 1 - SM activity; where SM activity is not published, at least the idle time |
| straggler | of the other ranks: how much longer they wait than it does |
| measured batch size | 1 - 1 / r, if throughput is projected to be r times as high |
| limits of an inference server | at most 1 - 1 / r, for the highest throughput r of the projection |
| smaller GPU | at most 1 - the larger of the busiest hour and the memory held |

*At most* means that other causes may have a part in it, *at least* that some GPUs have no known price, or
that nothing published bounds the loss; in sums such a GPU counts with all of its time at most. In sums no GPU
counts twice: a GPU with two causes loses at least the larger share and at most both together. A cause that cannot be
quantified gets no amount; an unknown price is never zero. Lists are ordered by severity (lost GPUs first), then by
amount.

### List prices

"""

TEXT_AFTER_LIST_PRICES = """
## Retired types

Never proposed. If named with `--instance` or `--now`, the output states the retirement with its date and source.

"""


def ranking() -> list[RankedOffer]:
    """All for which a published throughput is known, the cheapest hour of a type first."""
    rates = tuple(
        WorkRate(speed, "published", gpu=parse_exact_gpu(gpu), gpu_count=count) for gpu, count, speed in RESNET
    )
    found: dict[str, RankedOffer] = {}
    asked = JobRequirements(rates, IMAGES, providers=frozenset({"aws", "azure", "gcp"}))
    for each in rank_offers(asked, builtin_catalogue(), DAY).feasible:
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
    head = ("instance type", "GPUs", "images/s", "$/h", "rank by $/h", "$ per million images",
            "rank by $ per image", "hours", "total $")  # fmt: skip
    first, cheapest = found[0], by_work[0]
    more = (first.cost_per_unit or 0) / (cheapest.cost_per_unit or 1) - 1
    summary = (
        f"\nThe instance with the lowest hourly price ({first.offer.instance_type}) costs {100 * more:.0f} % more for "
        f"the job than the cheapest per image ({cheapest.offer.instance_type}), and takes "
        f"{(first.hours or 0) / (cheapest.hours or 1):.1f} times as long."
    )
    return [*table(head, rows), summary]


def catalogue() -> list[str]:
    """Offers by provider and GPU. Each row has the oldest date of its prices, so that none of them is older."""
    found: dict[tuple[str, str], list[InstanceOffer]] = defaultdict(list)
    for each in builtin_catalogue().offers:
        if not builtin_catalogue().retirement(each.provider, each.instance_type, DAY):
            found[each.provider, f"{each.gpu}"].append(each)
    rows = [
        (provider, f"{min(each.dated for each in offers)}", gpu,
         ", ".join(dict.fromkeys(each.instance_type for each in offers)))
        for (provider, gpu), offers in sorted(found.items())
    ]  # fmt: skip
    lines: list[str] = table(("provider", "not older than", "GPU", "instance types"), rows)
    return lines


def retired() -> list[str]:
    rows = [(each.instance_type, str(each.retired_on), each.source) for each in builtin_catalogue().retired]
    lines: list[str] = table(("type", "since", "source"), rows)
    return lines


def list_prices() -> list[str]:
    rows = [
        (f"{gpu}", f"{price.amount:.2f}", str(price.offers), ", ".join(price.providers),
         price.newest if price.oldest == price.newest else f"{price.oldest} to {price.newest}")
        for gpu, price in shipped_list_prices().items()
    ]  # fmt: skip
    lines: list[str] = table(("GPU", f"{CURRENCY}/h", "offers", "providers", "dated"), rows)
    return lines


def text() -> str:
    """The page."""
    peaks = table(("GPU", "TFLOPS"), [(name, f"{peak:g}") for name, peak in sorted(PEAK_TFLOPS.items())])
    parts = [TEXT.rstrip("\n"), "", *resnet(), TEXT_AFTER_TABLE.rstrip("\n"), "", *peaks, CATALOGUE.rstrip("\n"), ""]
    parts += [*catalogue(), TEXT_AFTER_CATALOGUE.rstrip("\n"), "", *list_prices()]
    parts += [TEXT_AFTER_LIST_PRICES.rstrip("\n"), "", *retired()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, text(), COMMAND))
