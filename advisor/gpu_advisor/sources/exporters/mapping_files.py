"""Read mapping files: this project's own, and those of the user. A mistake is reported with file, line and a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.sources.exporters.mapping import (
    IDENTITY_LABELS,
    Counter,
    ExporterMapping,
    Gauge,
    GaugeSum,
    IdentitySeries,
    PartOfWhole,
    Quantity,
    Rollup,
)
from gpu_advisor.yaml_text import KeyPath, YamlError, YamlText, explain_problems, parse_yaml, read_yaml

_MODELS: tuple[type[BaseModel], ...] = (
    ExporterMapping, IdentitySeries, Quantity, PartOfWhole, GaugeSum, Gauge, Counter, Rollup,
)  # fmt: skip
_SUFFIXES = (".yaml", ".yml")


class MappingError(Exception):
    """A mapping file is invalid. One line per problem: file, line, key, what is wrong, how to fix it."""


class _TextFile(Protocol):
    @property
    def name(self) -> str: ...

    def read_text(self, encoding: str) -> str: ...


def read_mappings(directory: str = "") -> tuple[ExporterMapping, ...]:
    """This project's mappings and those of a directory, by rank. A mapping replaces another of the same name.

    Raises MappingError.
    """
    found = {each.name: each for each in map(_read_shipped, _shipped_files())}
    if directory:
        quantities = {quantity for each in found.values() for quantity in each.quantities}
        found.update((each.name, each) for each in _read_directory(Path(directory), quantities))
    expanded = [variant for each in found.values() for variant in _variants(each)]
    return tuple(sorted(expanded, key=lambda mapping: (mapping.rank, mapping.name)))


@cache
def mappings(directory: str = "") -> tuple[ExporterMapping, ...]:
    """As `read_mappings`, read once in this process."""
    return read_mappings(directory)


@cache
def own_mappings() -> tuple[ExporterMapping, ...]:
    """The mappings of this project's own series: exporter, rules, jobs, and hosts under node_exporter's names."""
    return tuple(mapping for mapping in mappings() if mapping.rank <= 0)


def _shipped_files() -> Iterator[_TextFile]:
    folder = resources.files("gpu_advisor.sources.exporters") / "mappings"
    return iter(sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name))


def _read_shipped(file: _TextFile) -> ExporterMapping:
    return parse_mapping(file.read_text(encoding="utf-8"), file.name)


def _read_directory(directory: Path, quantities: Iterable[str]) -> Iterator[ExporterMapping]:
    try:
        files = sorted(file for file in directory.iterdir() if file.suffix in _SUFFIXES)
    except OSError as error:
        raise MappingError(
            f"{directory}: {error.strerror}: give the path of a directory with mapping files (*.yaml)"
        ) from error
    names: dict[str, Path] = {}
    for file in files:
        try:
            document = read_yaml(file)
        except YamlError as error:
            raise MappingError(str(error)) from error
        mapping = _build(document, str(file), quantities)
        if mapping.name in names:
            raise MappingError(f"{file}:1: name: {mapping.name} is the name in {names[mapping.name]} too: rename one")
        names[mapping.name] = file
        yield mapping


def parse_mapping(text: str, file: str, quantities: Iterable[str] | None = None) -> ExporterMapping:
    """One mapping. `file` is for messages; `quantities` are the known ones, any if None. Raises MappingError."""
    try:
        document = parse_yaml(text, file)
    except YamlError as error:
        raise MappingError(str(error)) from error
    return _build(document, file, quantities)


def _build(document: YamlText, file: str, quantities: Iterable[str] | None) -> ExporterMapping:
    if not isinstance(document.values, dict):
        raise MappingError(f"{file}:1: must be a mapping of keys to values, as in the files of this project")
    try:
        mapping = ExporterMapping.model_validate(document.values)
    except ValidationError as error:
        raise MappingError(explain_problems(document, file, error.errors(), _suggest_key)) from error
    problems = [f"{file}:{document.line(place)}: {problem}" for place, problem in _name_problems(mapping, quantities)]
    if problems:
        raise MappingError("\n".join(problems))
    return mapping


def _name_problems(mapping: ExporterMapping, quantities: Iterable[str] | None) -> Iterator[tuple[KeyPath, str]]:
    """Names that the models do not know: quantities and canonical labels."""
    if quantities is not None:
        known = sorted(quantities)
        for name in mapping.quantities:
            if name not in known:
                yield ("quantities", name), f"{name}: unknown quantity{hint(name, known)}"
    finer = {label for forms in mapping.quantities.values() for form in forms for label in form.each}
    labels = sorted({*IDENTITY_LABELS, *mapping.by, *finer, "node"})
    for key, table in (
        ("labels", mapping.labels), ("slice_labels", mapping.slice_labels), ("prefixes", mapping.prefixes),
        ("separators", mapping.separators),
    ):  # fmt: skip
        for label in table:
            if label not in labels:
                yield (key, label), f"{key}.{label}: unknown label{hint(label, labels)}"
    if mapping.identified_by:
        yield ("identified_by",), "identified_by: unknown key: remove it"


def _suggest_key(unknown: str) -> str:
    known = {field for model in _MODELS for field in model.model_fields} - {"identified_by"}
    return hint(unknown.rpartition(".")[2], known)


def _variants(mapping: ExporterMapping) -> Iterator[ExporterMapping]:
    """The mapping for each prefix that the exporter may put before its metrics' names."""
    for prefix in mapping.metric_prefixes:
        if not prefix:
            yield mapping
            continue
        values = _with_prefix(mapping.model_dump(exclude_unset=True), prefix)
        yield ExporterMapping.model_validate({**values, "name": f"{mapping.name} ({prefix}*)"})


def _with_prefix(value: Any, prefix: str) -> Any:
    """A mapping's values with the prefix before each metric."""
    if isinstance(value, dict):
        return {key: _with_prefix_at(key, inner, prefix) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_prefix(each, prefix) for each in value]
    return value


def _with_prefix_at(key: str, value: Any, prefix: str) -> Any:
    if key in ("metric", "witness") and value:
        return prefix + value
    if key == "metrics":
        return [prefix + metric for metric in value]
    return _with_prefix(value, prefix)
