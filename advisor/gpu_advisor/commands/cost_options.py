"""The options of `gpu-advisor cost`, and the question that they put."""

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


def _amount(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbt]?)\s*", value, re.IGNORECASE)
    try:
        amount = float(found[1]) * _SCALES[found[2].lower()] if found else math.nan
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount > 0):
        raise click.BadParameter(f"{value!r}: write a number above 0, as in 115m, 1.2b or 1e9")
    return amount


def _memory(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    return 0.0 if value is None else parse_memory(context, parameter, value) / _GIB


def _day(_context: click.Context, _parameter: click.Parameter, value: str | None) -> date:
    if value is None:
        return date.today()
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: write a day as in 2026-11-20") from error


_OPTIONS = (
    click.option("--samples", callback=_amount, metavar="N", help="Samples to process in all, as in 115m."),
    click.option("--tokens", callback=_amount, metavar="N", help="Or tokens."),
    click.option("--gpu-hours", callback=_amount, metavar="N", help="Or hours of one GPU of the type of --gpu."),
    click.option("--rate", "rates", multiple=True, metavar="WHAT=N",
                 help="Samples or tokens a second: V100-16GB=1200, 8xA100-80GB=16621 or p3.8xlarge=4400."),
    click.option("--profile", "profiles", multiple=True, type=_FILE, metavar="FILE",
                 help="As measured by `gpu-advisor probe` on one GPU. May be given several times."),
    click.option("--tokens-per-sample", type=click.IntRange(min=1), help="Where --profile meets --tokens."),
    click.option("--scaling", type=click.FloatRange(0, 1, min_open=True), metavar="RATIO",
                 help="Speed on n GPUs beside n times one, where only one is known; as 0.87."),
    click.option("--estimate-throughput", "estimate", is_flag=True,
                 help="Where it is not known, guess it by peak TFLOPS; told as such."),
    click.option("--memory", "gpu_memory_gib", callback=_memory, metavar="SIZE", help="Needed on each GPU, as 40GiB."),
    click.option("--instances", "count", type=click.IntRange(1, 10_000), default=1, show_default=True,
                 help="So many of one type work together; --rate 16xH100=... says how fast."),
    click.option("--min-gpus", type=click.IntRange(min=1), default=1, show_default=True, help="In all."),
    click.option("--max-gpus", type=click.IntRange(min=1)),
    click.option("--gpu", "gpus", multiple=True, metavar="TYPE", help="Only these: A100, A100-80GB, L4 ..."),
    click.option("--provider", multiple=True, help="Only these: aws, gcp, azure, on-premise, or your catalogue's."),
    click.option("--region", multiple=True, help="Only these."),
    click.option("--instance", "instances", multiple=True, metavar="TYPE", help="Only these."),
    click.option("--spot", is_flag=True, help="Spot instances too."),
    click.option("--interruption", type=click.FloatRange(0, 10), default=0.1, show_default=True, metavar="RATIO",
                 help="Of the work, done twice on spot instances because they are taken away."),
    click.option("--budget", type=click.FloatRange(0, min_open=True), help="For the whole job."),
    click.option("--deadline", type=click.FloatRange(0, min_open=True), metavar="HOURS"),
    click.option("--now", metavar="INSTANCE[@REGION]", help="What is used now, to compare."),
    click.option("--now-spot", is_flag=True, help="It is a spot instance."),
    click.option("--catalogue", type=_FILE, metavar="FILE", help="Your own rows (CSV or YAML), over those shipped."),
    click.option("--config", type=_FILE, metavar="FILE", help="Settings, for cost.catalogue."),
    click.option("--date", "today", callback=_day, metavar="DAY", help="Judge age as of it.  [default: today]"),
    click.option("--list", "listing", is_flag=True, help="Only list what the catalogue has of these."),
    click.option("--all", "everything", is_flag=True, help="Also what failed, each with its reasons."),
    click.option("--refresh-from", type=_FILE, metavar="FILE", help="Turn SkyPilot's vms.csv into a catalogue."),
    click.option("--source", help="Where that file is from: goes into each row."),
    click.option("--out", type=_FILE, metavar="FILE", help="Where the catalogue goes."),
)  # fmt: skip


def options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def work_unit(options: dict[str, Any]) -> str:
    """Of the work, in the singular."""
    amounts = [name for name in ("samples", "tokens", "gpu_hours") if options[name] is not None]
    if len(amounts) > 1:
        raise click.UsageError("--samples, --tokens and --gpu-hours are three ways to say the work: give one")
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
    """Raises CostError or click.UsageError where the question does not make sense, with the mend."""
    from gpu_advisor.cost.offer_ranking import JobRequirements
    from gpu_advisor.cost.offers import parse_gpu

    unit = work_unit(options)
    amount = next((options[name] for name in ("samples", "tokens", "gpu_hours") if options[name] is not None), None)
    gpus = tuple(parse_gpu(text) for text in options["gpus"])
    most = options["max_gpus"]
    if most is not None and most < options["min_gpus"]:
        raise click.UsageError(f"--max-gpus {most} is below --min-gpus {options['min_gpus']}")
    if amount is None and (options["budget"] or options["deadline"]):
        raise click.UsageError("--budget and --deadline are of a whole job: say how large with --samples or --tokens")
    _check_filters(options, catalogue)
    for gpu, text in zip(gpus, options["gpus"], strict=True):
        _check_gpu(gpu, text, catalogue)
    return JobRequirements(
        rates=() if options["listing"] else _rates(options, unit, gpus, catalogue),
        amount=amount,
        gpu_memory_gib=options["gpu_memory_gib"],
        instances=options["count"],
        min_gpus=options["min_gpus"],
        max_gpus=most,
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
            raise click.UsageError("an hour of one GPU is not one of another: say of which with --gpu, as --gpu H100")
        return tuple(WorkRate(1 / 3600, "a GPU hour is an hour of one GPU", gpu=gpu, linear=True) for gpu in gpus)
    given = tuple(_rate(text, unit, catalogue) for text in options["rates"])
    profiles = [read_profile(path) for path in options["profiles"]]
    if profiles and unit == "token" and not options["tokens_per_sample"]:
        raise click.UsageError("profiles count samples: say how many tokens one has with --tokens-per-sample")
    if not given and not profiles:
        raise click.UsageError(
            "say how fast the job runs: --rate A100-80GB=2470, or --profile FILE of gpu-advisor probe; --list shows "
            "the catalogue"
        )
    return given + rates_from_profiles(profiles, options["tokens_per_sample"] if unit == "token" else 1.0)


def _rate(text: str, unit: str, catalogue: Catalogue) -> WorkRate:
    """INSTANCE=N, GPU=N or COUNTxGPU=N."""
    from gpu_advisor.cost.offer_throughput import WorkRate
    from gpu_advisor.cost.offers import normalize_instance_type, parse_exact_gpu

    what, _, number = text.partition("=")
    try:
        per_second = float(number)
    except ValueError:
        per_second = math.nan
    if not (math.isfinite(per_second) and per_second > 0):
        raise click.BadParameter(f"{text!r}: write WHAT=N with {unit}s a second above 0, as in A100-80GB=2470")
    basis = f"given: {per_second:g} {unit}s/s"
    same = {
        each.gpu_count
        for each in catalogue.offers
        if normalize_instance_type(each.instance_type) == normalize_instance_type(what.strip())
    }
    if len(same) > 1:
        raise CostError(f"{what.strip()} comes with several numbers of GPUs: give the rate by these, as 2xT4={number}")
    if same:
        return WorkRate(per_second, basis, instance_type=what.strip())
    found = re.fullmatch(r"\s*(?:(\d+)\s*[xX]\s*)?(.+?)\s*", what)
    count = int(found[1] or 1) if found else 1
    if not found or count < 1:
        raise click.BadParameter(f"{text!r}: write WHAT=N, as in A100-80GB=2470 or 8xH100=24000")
    gpu = parse_exact_gpu(found[2])
    _check_gpu(gpu, found[2], catalogue)
    return WorkRate(per_second, basis, gpu=gpu, gpu_count=count)


def find_offer(text: str, catalogue: Catalogue) -> InstanceOffer:
    """INSTANCE or INSTANCE@REGION. Raises CostError."""
    from gpu_advisor.cost.offers import normalize_instance_type

    name, _, region = text.partition("@")
    same = [
        each
        for each in catalogue.offers
        if normalize_instance_type(each.instance_type) == normalize_instance_type(name.strip())
    ]
    if not same:
        raise CostError(_unknown_message("instance type", name, (each.instance_type for each in catalogue.offers)))
    here = [each for each in same if not region or each.region == region]
    if not here:
        raise CostError(f"{name} is not known in {region}, but in {', '.join(each.region for each in same)}")
    return min(here, key=lambda each: each.price_per_hour)


def _check_filters(options: dict[str, Any], catalogue: Catalogue) -> None:
    """A filter that nothing can pass is a slip of the pen, not an answer."""
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
    mend = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)};"
    return (
        f"unknown {what} {name.strip()!r}: {mend} another can be added with --catalogue, or from SkyPilot's "
        "catalogue with --refresh-from"
    )
