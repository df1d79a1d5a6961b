"""`gpu-advisor cost`: the instance type on which a job costs least."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.commands import cost_options, output
from gpu_advisor.cost.errors import CostError

if TYPE_CHECKING:
    from gpu_advisor.cost.catalogue import Catalogue
    from gpu_advisor.cost.offer_ranking import JobRequirements, OfferRanking, RankedOffer
    from gpu_advisor.cost.offers import InstanceOffer

EXIT_NOTHING_FITS = 1


@click.command("cost", short_help="Find the instance type on which a job costs least.")
@cost_options.options
@output.options("an instance type is cheaper than --now")
def command(format_: output.Format, exit_code: bool, **options: Any) -> int:
    """Find the instance type on which a job costs least, by cost per unit of work, not by hourly price.

    Give the job's throughput: measured with `gpu-advisor probe` (--profile), or known (--rate). Unknown throughput is
    not guessed, unless --estimate-throughput scales it by peak TFLOPS, marked as an estimate. Prices come from a dated
    built-in catalogue; override them with --catalogue or cost.catalogue in the settings.

    \b
      gpu-advisor cost --samples 115m --rate V100-16GB=1200 --rate A100-80GB=2470
      gpu-advisor cost --samples 1e9 --profile a100.profile.json --spot \\
          --deadline 24 --budget 500
      gpu-advisor cost --samples 1e9 --rate 8xA100-80GB=16621 \\
          --now p4de.24xlarge@us-east-1 --all
      gpu-advisor cost --gpu-hours 2000 --gpu H100 --min-gpus 8 --provider aws \\
          --provider gcp
      gpu-advisor cost --list --memory 40GiB --region us-east-1
      gpu-advisor cost --refresh-from vms.csv --provider aws --date 2026-11-20 \\
          --out prices.csv

    Exit code 1: no instance type fits the job. 4: throughput unknown. With --exit-code, 3: an instance type is cheaper
    than --now.
    """
    try:
        if options["refresh_from"]:
            return _refresh(options)
        return _answer(format_, exit_code, options)
    except (CostError, CalibrationError) as error:
        raise click.ClickException(str(error)) from error


def _answer(format_: output.Format, exit_code: bool, options: dict[str, Any]) -> int:
    from gpu_advisor.commands import cost_output
    from gpu_advisor.cost.catalogue import stale_prices
    from gpu_advisor.cost.offer_ranking import rank_offers

    settings = cost_options.cost_settings(options["config"])
    catalogue = cost_options.load_catalogue(options["catalogue"], settings)
    today: date = options["today"]
    work = cost_options.build_work(options, catalogue)
    choice = rank_offers(work, catalogue, today)
    of = cost_output.CostReport(
        work, cost_options.work_unit(options), choice, _current_candidate(options, work, catalogue, today),
        stale_prices(_offers_of_providers(work, catalogue), today, settings.catalogue_stale_days),
    )  # fmt: skip
    if options["listing"]:
        cost_output.show_list(of, format_)
        return 0
    cost_output.show(of, format_, options["everything"])
    return _exit_code(choice, of.now, exit_code)


def _offers_of_providers(work: JobRequirements, catalogue: Catalogue) -> list[InstanceOffer]:
    return [each for each in catalogue.offers if not work.providers or each.provider in work.providers]


def _exit_code(choice: OfferRanking, now: RankedOffer | None, exit_code: bool) -> int:
    best = choice.best
    if best is None:
        return output.EXIT_INSUFFICIENT_DATA if choice.undetermined else EXIT_NOTHING_FITS
    if exit_code and now is not None and now.cost_per_unit is not None and best.cost_per_unit is not None:
        return output.EXIT_ACTION_NEEDED if best.cost_per_unit < now.cost_per_unit else 0
    return 0


def _current_candidate(
    options: dict[str, Any], work: JobRequirements, catalogue: Catalogue, today: date
) -> RankedOffer | None:
    """The current offer, evaluated without the filters for others, such as regions."""
    from gpu_advisor.cost.offer_ranking import evaluate_offer

    if options["now"] is None:
        return None
    nowhere: frozenset[str] = frozenset()
    job = replace(work, gpus=(), providers=nowhere, regions=nowhere, instance_types=nowhere)
    return evaluate_offer(
        cost_options.find_offer(options["now"], catalogue), options["now_spot"], job, catalogue, today
    )


def _refresh(options: dict[str, Any]) -> int:
    from gpu_advisor.cost.catalogue import offers_to_csv
    from gpu_advisor.cost.skypilot import convert_catalogue
    from gpu_advisor.storage.output_file import write_output

    if len(options["provider"]) != 1 or not options["out"]:
        raise click.UsageError("--refresh-from needs one --provider (aws, gcp, lambda ...) and --out FILE")
    path: Path = options["refresh_from"]
    found = convert_catalogue(
        cost_options.read_csv_text(path), options["provider"][0].lower(), options["today"],
        options["source"] or f"{path.name}, SkyPilot's format", frozenset(options["region"]),
    )  # fmt: skip
    out: Path = options["out"]
    try:
        write_output(out, offers_to_csv(found.offers))
    except OSError as error:
        raise CostError(f"{out}: {error.strerror}: give a path that can be written") from error
    click.echo(f"{out}: {len(found.offers)} instance types by region, of {found.rows} rows with GPUs")
    for why, count in found.rejected_rows:
        click.echo(f"{count} rows rejected: {why}")
    click.echo(f"Use it: gpu-advisor cost --catalogue {out} ..., or cost.catalogue in the settings")
    return 0 if found.offers else EXIT_NOTHING_FITS
