"""Options of `gpu-advisor cost`, and the job requirements they describe."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpu_advisor.commands.batch_size import parse_memory
from gpu_advisor.cost.errors import CostError

if TYPE_CHECKING:
    from gpu_advisor.cost.catalogue import Catalogue
    from gpu_advisor.cost.offer_ranking import JobRequirements
    from gpu_advisor.cost.offer_throughput import WorkRate
    from gpu_advisor.cost.offers import InstanceOffer
    from gpu_advisor.settings import CostSettings

F = TypeVar("F", bound=Callable[..., Any])

_GIB = 1 << 30
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_FILE = click.Path(dir_okay=False, path_type=Path)


def parse_amount(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbt]?)\s*", value, re.IGNORECASE)
    try:
        amount = float(found[1]) * _SCALES[found[2].lower()] if found else math.nan
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount > 0):
        raise click.BadParameter(f"{value!r}: write a number above 0, such as 115m, 1.2b or 1e9")
    return amount


def _memory(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    return 0.0 if value is None else parse_memory(context, parameter, value) / _GIB


def _day(_context: click.Context, _parameter: click.Parameter, value: str | None) -> date:
    if value is None:
        return date.today()
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: write a date such as 2026-11-20") from error


_OPTIONS = (
    click.option("--samples", callback=parse_amount, metavar="N", help="Total samples to process, such as 115m."),
    click.option("--tokens", callback=parse_amount, metavar="N", help="Total tokens to process, instead of samples."),
    click.option("--gpu-hours", callback=parse_amount, metavar="N", help="Total hours of one GPU of the --gpu type."),
    click.option("--rate", "rates", multiple=True, metavar="WHAT=N",
                 help="Samples or tokens per second: V100-16GB=1200, 8xA100-80GB=16621 or p3.8xlarge=4400."),
    click.option("--profile", "profiles", multiple=True, type=_FILE, metavar="FILE",
                 help="Profile of one GPU from `gpu-advisor probe`. Repeatable."),
    click.option("--tokens-per-sample", type=click.IntRange(min=1),
                 help="Required for --profile with --tokens.", metavar="TOKENS"),
    click.option("--scaling", type=click.FloatRange(0, 1, min_open=True), metavar="RATIO",
                 help="Scaling efficiency on n GPUs if only one was measured, such as 0.87."),
    click.option("--estimate-throughput", "estimate", is_flag=True,
                 help="Estimate unknown throughput by peak TFLOPS; marked in the output."),
    click.option("--memory", "gpu_memory_gib", callback=_memory, metavar="SIZE",
                 help="Required memory per GPU, such as 40GiB."),
    click.option("--instances", "count", type=click.IntRange(1, 10_000), default=1, show_default=True,
                 help="Instances of one type that share the job; give their rate as --rate 16xH100=...", metavar="N"),
    click.option("--min-gpus", type=click.IntRange(min=1), default=1, show_default=True,
                 help="Minimum number of GPUs in total.", metavar="N"),
    click.option("--max-gpus", type=click.IntRange(min=1), help="Maximum number of GPUs in total.", metavar="N"),
    click.option("--gpu", "gpus", multiple=True, metavar="TYPE", help="Only these GPU types: A100, A100-80GB, L4 ..."),
    click.option("--provider", multiple=True,
                 help="Only these: aws, azure, coreweave, gcp, lambda, nebius, oci, runpod, on-premise, or yours.",
                 metavar="NAME"),
    click.option("--region", multiple=True, help="Only these regions.", metavar="NAME"),
    click.option("--instance", "instances", multiple=True, metavar="TYPE", help="Only these instance types."),
    click.option("--spot", is_flag=True, help="Include spot instances."),
    click.option("--interruption", type=click.FloatRange(0, 10), default=0.1, show_default=True, metavar="RATIO",
                 help="Share of the work that spot interruptions repeat."),
    click.option("--budget", type=click.FloatRange(0, min_open=True),
                 help="Maximum cost of the whole job.", metavar="MONEY"),
    click.option("--deadline", type=click.FloatRange(0, min_open=True), metavar="HOURS",
                 help="Only types that finish the job in this time."),
    click.option("--now", metavar="INSTANCE[@REGION]", help="Instance in use now, to compare with."),
    click.option("--now-spot", is_flag=True, help="The --now instance is a spot instance."),
    click.option("--catalogue", type=_FILE, metavar="FILE",
                 help="Your own prices (CSV or YAML); they override the built-in ones."),
    click.option("--config", type=_FILE, metavar="FILE", help="Settings file, for cost.catalogue."),
    click.option("--date", "today", callback=_day, metavar="DAY",
                 help="Reference date for price age and retirement.  [default: today]"),
    click.option("--list", "listing", is_flag=True, help="Only list the matching catalogue rows."),
    click.option("--all", "everything", is_flag=True, help="Include rejected candidates, with the reasons."),
    click.option("--refresh-from", type=_FILE, metavar="FILE",
                 help="Convert a cloud's vms.csv of SkyPilot into a catalogue."),
    click.option("--source", help="Source of that file, recorded in each row.", metavar="NAME"),
    click.option("--out", type=_FILE, metavar="FILE", help="Catalogue file to write."),
)  # fmt: skip


def options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def work_unit(options: dict[str, Any]) -> str:
    """Unit of the work, in the singular."""
    amounts = [name for name in ("samples", "tokens", "gpu_hours") if options[name] is not None]
    if len(amounts) > 1:
        raise click.UsageError("--samples, --tokens and --gpu-hours exclude each other: give one")
    return {"samples": "sample", "tokens": "token", "gpu_hours": "GPU hour"}[amounts[0]] if amounts else "sample"


def cost_settings(config: Path | None) -> CostSettings:
    from gpu_advisor.settings import CostSettings, load_settings

    return load_settings(config).cost if config else CostSettings()


def load_catalogue(path: Path | None, settings: CostSettings) -> Catalogue:
    from gpu_advisor.cost.catalogue import with_user_catalogue

    return with_user_catalogue(path or (Path(settings.catalogue) if settings.catalogue else None))


def read_csv_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CostError(f"{path}: {error}: give the path of a readable CSV file") from error


def build_work(options: dict[str, Any], catalogue: Catalogue) -> JobRequirements:
    """Build the requirements. Raises CostError or click.UsageError for invalid options."""
    from gpu_advisor.cost.offer_ranking import JobRequirements
    from gpu_advisor.cost.offers import parse_gpu

    unit = work_unit(options)
    amount = next((options[name] for name in ("samples", "tokens", "gpu_hours") if options[name] is not None), None)
    gpus = tuple(parse_gpu(text) for text in options["gpus"])
    max_gpus = options["max_gpus"]
    if max_gpus is not None and max_gpus < options["min_gpus"]:
        raise click.UsageError(f"--max-gpus {max_gpus} is below --min-gpus {options['min_gpus']}")
    if amount is None and (options["budget"] or options["deadline"]):
        raise click.UsageError("--budget and --deadline apply to a whole job: give its size with --samples or --tokens")
    _check_filters(options, catalogue)
    for gpu, text in zip(gpus, options["gpus"], strict=True):
        _check_gpu(gpu, text, catalogue)
    return JobRequirements(
        rates=() if options["listing"] else _rates(options, unit, gpus, catalogue),
        amount=amount,
        gpu_memory_gib=options["gpu_memory_gib"],
        instances=options["count"],
        min_gpus=options["min_gpus"],
        max_gpus=max_gpus,
        gpus=gpus,
        providers=frozenset(each.lower() for each in options["provider"]),
        regions=frozenset(options["region"]),
        instance_types=frozenset(options["instances"]),
        spot=options["spot"],
        interruption_ratio=options["interruption"],
        budget=options["budget"],
        deadline_hours=options["deadline"],
        scaling_ratio=options["scaling"],
        estimate=options["estimate"],
    )


def _rates(options: dict[str, Any], unit: str, gpus: tuple[Any, ...], catalogue: Catalogue) -> tuple[WorkRate, ...]:
    from gpu_advisor.calibration.profile import read_profile
    from gpu_advisor.cost.offer_throughput import WorkRate
    from gpu_advisor.cost.profile_rates import rates_from_profiles

    if unit == "GPU hour":
        if not gpus:
            raise click.UsageError("GPU hours differ between GPU types: give the type, such as --gpu H100")
        return tuple(WorkRate(1 / 3600, "a GPU hour is an hour of one GPU", gpu=gpu, linear=True) for gpu in gpus)
    given = tuple(_rate(text, unit, catalogue) for text in options["rates"])
    profiles = [read_profile(path) for path in options["profiles"]]
    if profiles and unit == "token" and not options["tokens_per_sample"]:
        raise click.UsageError("profiles count samples: give --tokens-per-sample as well")
    if not given and not profiles:
        raise click.UsageError(
            "no throughput given: use --rate A100-80GB=2470, or --profile FILE from gpu-advisor probe; --list shows "
            "the catalogue"
        )
    return given + rates_from_profiles(profiles, options["tokens_per_sample"] if unit == "token" else 1.0)


def _rate(text: str, unit: str, catalogue: Catalogue) -> WorkRate:
    """Parse INSTANCE=N, GPU=N or COUNTxGPU=N."""
    from gpu_advisor.cost.offer_throughput import WorkRate
    from gpu_advisor.cost.offers import normalize_instance_type, parse_exact_gpu

    what, _, number = text.partition("=")
    try:
        per_second = float(number)
    except ValueError:
        per_second = math.nan
    if not (math.isfinite(per_second) and per_second > 0):
        raise click.BadParameter(f"{text!r}: write WHAT=N with {unit}s per second above 0, such as A100-80GB=2470")
    basis = f"given: {per_second:g} {unit}s/s"
    same = {
        each.gpu_count
        for each in catalogue.offers
        if normalize_instance_type(each.instance_type) == normalize_instance_type(what.strip())
    }
    if len(same) > 1:
        raise CostError(
            f"{what.strip()} has variants with different numbers of GPUs: add the count, such as 2xT4={number}"
        )
    if same:
        return WorkRate(per_second, basis, instance_type=what.strip())
    found = re.fullmatch(r"\s*(?:(\d+)\s*[xX]\s*)?(.+?)\s*", what)
    count = int(found[1] or 1) if found else 1
    if not found or count < 1:
        raise click.BadParameter(f"{text!r}: write WHAT=N, such as A100-80GB=2470 or 8xH100=24000")
    gpu = parse_exact_gpu(found[2])
    _check_gpu(gpu, found[2], catalogue)
    return WorkRate(per_second, basis, gpu=gpu, gpu_count=count)


def find_offer(text: str, catalogue: Catalogue) -> InstanceOffer:
    """Find INSTANCE or INSTANCE@REGION at its lowest price. Raises CostError."""
    from gpu_advisor.cost.offers import normalize_instance_type

    name, _, region = text.partition("@")
    same = [
        each
        for each in catalogue.offers
        if normalize_instance_type(each.instance_type) == normalize_instance_type(name.strip())
    ]
    if not same:
        raise CostError(_retired_or_unknown(name, catalogue))
    in_region = [each for each in same if not region or each.region == region]
    if not in_region:
        regions = ", ".join(each.region for each in same)
        raise CostError(f"{name} is not in the catalogue for {region}: use one of {regions}")
    return min(in_region, key=lambda each: each.price_per_hour)


def _retired_or_unknown(name: str, catalogue: Catalogue) -> str:
    """Why a type has no price: it is retired, or its name is unknown."""
    from gpu_advisor.cost.offers import normalize_instance_type

    retired = next(
        (each for each in catalogue.retired
         if normalize_instance_type(each.instance_type) == normalize_instance_type(name.strip())), None,
    )  # fmt: skip
    if retired is None:
        return _unknown_message("instance type", name, (each.instance_type for each in catalogue.offers))
    return (
        f"{retired.instance_type} is retired since {retired.retired_on} ({retired.source}) and has no price in the "
        "catalogue: add the price that you pay with --catalogue"
    )


def _check_filters(options: dict[str, Any], catalogue: Catalogue) -> None:
    """Reject filters that match nothing in the catalogue: they are typos."""
    from gpu_advisor.cost.offers import normalize_instance_type

    for what, names, known_names in (
        ("provider", [each.lower() for each in options["provider"]], [each.provider for each in catalogue.offers]),
        ("region", options["region"], [each.region for each in catalogue.offers]),
    ):
        for name in names:
            if name not in known_names:
                raise CostError(_unknown_message(what, name, known_names))
    types = {normalize_instance_type(each.instance_type) for each in catalogue.offers}
    types |= {normalize_instance_type(each.instance_type) for each in catalogue.retired}
    for name in options["instances"]:
        if normalize_instance_type(name) not in types:
            raise CostError(_unknown_message("instance type", name, (each.instance_type for each in catalogue.offers)))


def _check_gpu(gpu: Any, text: str, catalogue: Catalogue) -> None:
    if not any(gpu.covers(each.gpu) for each in catalogue.offers):
        raise CostError(_unknown_message("GPU", text, (str(each.gpu) for each in catalogue.offers)))


def _unknown_message(what: str, name: str, known_names: Iterable[str]) -> str:
    known = sorted(set(known_names))
    near = difflib.get_close_matches(name.strip(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
    return (
        f"unknown {what} {name.strip()!r}: {hint} Add others with --catalogue, or from SkyPilot's catalogue with "
        "--refresh-from"
    )
