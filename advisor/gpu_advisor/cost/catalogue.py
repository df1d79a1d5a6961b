"""The catalogue of instance types and prices: built in, with the user's rows overriding it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gpu_advisor.cost import catalogue_rows
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offers import InstanceOffer, Retirement, normalize_instance_type
from gpu_advisor.yaml_text import YamlError, parse_yaml

MAX_BYTES = 64 << 20
MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Catalogue:
    offers: tuple[InstanceOffer, ...]
    retired: tuple[Retirement, ...] = ()

    def retirement(self, provider: str, instance_type: str, today: date) -> Retirement | None:
        """None if the type is available today."""
        key = provider, normalize_instance_type(instance_type)
        return next(
            (each for each in self.retired
             if (each.provider, normalize_instance_type(each.instance_type)) == key and each.retired_on <= today), None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PriceAge:
    """Age of a provider's oldest price; `days` is negative for a date in the future."""

    provider: str
    oldest: date
    days: int


def stale_prices(offers: Iterable[InstanceOffer], today: date, max_days: int) -> tuple[PriceAge, ...]:
    """Providers whose prices are older than `max_days`, or dated in the future."""
    oldest: dict[str, date] = {}
    newest: dict[str, date] = {}
    for each in offers:
        oldest[each.provider] = min(oldest.get(each.provider, each.dated), each.dated)
        newest[each.provider] = max(newest.get(each.provider, each.dated), each.dated)
    found = []
    for provider, first in sorted(oldest.items()):
        reference_date = newest[provider] if newest[provider] > today else first
        days = (today - reference_date).days
        if days > max_days or days < 0:
            found.append(PriceAge(provider, reference_date, days))
    return tuple(found)


@cache
def builtin_catalogue() -> Catalogue:
    """The catalogue in the package."""
    folder = resources.files("gpu_advisor.cost")
    offers = offers_from_csv((folder / "catalogue.csv").read_text(encoding="utf-8"), "catalogue.csv")
    rows = csv.DictReader(io.StringIO((folder / "retired.csv").read_text(encoding="utf-8")))
    retired = tuple(
        Retirement(row["provider"], row["instance_type"], date.fromisoformat(row["retired_on"]), row["source"])
        for row in rows
    )
    return Catalogue(offers, retired)


def with_user_catalogue(path: Path | None) -> Catalogue:
    """The catalogue with the rows of a user's file, if there is one: a row replaces the one with the same instance
    type, region and GPUs. Raises CostError with a line for each problem.
    """
    builtin = builtin_catalogue()
    if path is None:
        return builtin
    own = read_catalogue(path)
    own_keys = {each.key for each in own}
    return Catalogue((*(each for each in builtin.offers if each.key not in own_keys), *own), builtin.retired)


def read_catalogue(path: Path) -> tuple[InstanceOffer, ...]:
    """Offers of a CSV or YAML file. Raises CostError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise CostError(f"{path}: larger than {MAX_BYTES >> 20} MiB: keep only the regions that you use")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise CostError(f"{path}: {error.strerror}: give the path of a readable CSV or YAML file") from error
    except UnicodeDecodeError as error:
        raise CostError(f"{path}: not UTF-8 text: save it as UTF-8") from error
    return offers_from_csv(text, str(path)) if path.suffix.lower() == ".csv" else offers_from_yaml(text, str(path))


def offers_from_csv(text: str, name: str) -> tuple[InstanceOffer, ...]:
    """Rows with the columns `catalogue_rows.CATALOGUE_COLUMNS`. Raises CostError."""
    table = csv.DictReader(io.StringIO(text))
    try:
        missing = set(catalogue_rows.CATALOGUE_COLUMNS) - set(table.fieldnames or ())
        rows = [(f"{name}:{table.line_num}", row) for row in table]
    except csv.Error as error:
        raise CostError(f"{name}:{table.line_num}: not CSV: {error}") from error
    if missing:
        raise CostError(
            f"{name}: the header lacks {', '.join(sorted(missing))}: begin with "
            f"{','.join(catalogue_rows.CATALOGUE_COLUMNS)}; --refresh-from converts a file in SkyPilot's format"
        )
    if any(None in row for _, row in rows):
        where = next(where for where, row in rows if None in row)
        raise CostError(f"{where}: more cells than the header has columns: quote cells that contain a comma")
    return _parse_rows(rows, catalogue_rows.parse_offer)


def offers_from_yaml(text: str, name: str) -> tuple[InstanceOffer, ...]:
    """`instances` with the CSV's columns, `on_premise` with `catalogue_rows.ON_PREMISE_KEYS`. Raises CostError."""
    try:
        document = parse_yaml(text, name).values
    except YamlError as error:
        raise CostError(str(error)) from error
    if not isinstance(document, dict) or not document or document.keys() - {"instances", "on_premise"}:
        raise CostError(f"{name}: must have lists under the keys instances and on_premise, and no other keys")
    instances = _parse_rows(_entries(document, "instances", name), catalogue_rows.parse_offer)
    own = _parse_rows(_entries(document, "on_premise", name), catalogue_rows.parse_on_premise)
    return _check_unique([(name, each) for each in (*instances, *own)])


def offers_to_csv(offers: Iterable[InstanceOffer]) -> str:
    """The inverse of `offers_from_csv`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(catalogue_rows.CATALOGUE_COLUMNS)
    for each in offers:
        memory = f"{each.gpu_memory_gib:.5g}"
        writer.writerow([
            each.provider, each.region, each.instance_type, each.gpu_type, each.gpu_count, memory,
            _or_empty(each.vcpus), _or_empty(each.memory_gib), _or_empty(each.price_per_hour),
            _or_empty(each.spot_price_per_hour), each.dated.isoformat(), each.source,
        ])  # fmt: skip
    return out.getvalue()


def _or_empty(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _entries(document: Mapping[str, Any], key: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    given = document.get(key) or []
    if not isinstance(given, list):
        raise CostError(f"{name}: {key}: must be a list")
    for number, entry in enumerate(given, 1):
        if not isinstance(entry, dict):
            raise CostError(f"{name}: {key}[{number}]: must be a mapping, as in {{provider: aws, ...}}")
        yield f"{name}: {key}[{number}]", entry


def _parse_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]], read_row: Callable[[Mapping[str, Any]], InstanceOffer]
) -> tuple[InstanceOffer, ...]:
    """All rows. Raises one CostError with the problems of all rows."""
    found, problems = [], []
    for where, row in rows:
        try:
            found.append((where, read_row(row)))
        except CostError as error:
            problems.append(f"{where}: {error}")
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise CostError("\n".join(problems[:MAX_PROBLEMS] + more))
    return _check_unique(found)


def _check_unique(found: Sequence[tuple[str, InstanceOffer]]) -> tuple[InstanceOffer, ...]:
    seen: dict[tuple[str, str, str, str, int], str] = {}
    for where, each in found:
        if each.key in seen:
            label = f"{each.instance_type} in {each.region}"
            raise CostError(f"{where}: duplicate {label} (first at {seen[each.key]}): keep one")
        seen[each.key] = where
    return tuple(each for _, each in found)
