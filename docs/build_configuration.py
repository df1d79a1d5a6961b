"""Writes docs/configuration.md, the reference of all settings, from the settings themselves.

python docs/build_configuration.py            writes it
python docs/build_configuration.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from generated_page import main, table
from gpu_advisor.settings import Settings
from gpu_advisor.settings.pools import DEMAND_PRESETS
from gpu_exporter.config import Settings as ExporterSettings
from gpu_exporter.devices import DRIVERS
from gpu_exporter.host import COLLECTORS
from gpu_exporter.wiring import COLLECTOR_GROUPS
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

PAGE = Path(__file__).with_name("configuration.md")
COMMAND = "python docs/build_configuration.py"

INTRODUCTION = f"""# Settings

All settings of both programs. Made by `{COMMAND}` from the code that reads them: do not edit.

Both refuse at start what they do not understand, with file, line, key and the mend. Nothing must be set: without a
file, all defaults hold.

## The exporter

`gpu-exporter --help` says the same. Each flag is a key of the file named by `--config.file`, without the dashes; a
dot may also be a level ([example](../exporter/exporter.example.yml)). A flag wins over the file. Durations are
written as in `250ms`, `15s`, `5m`, `6h` or `7d`.
"""

SWITCHES = """`--no-collector.NAME` switches off what is read: """

ADVISOR = """## The advisor

One YAML file: `gpu-advisor serve --config advisor.yml` ([example](../advisor/advisor.example.yml)); `up`, `check`,
`recommend`, `autoscale` and `backtest` take the same file. Percent and seconds are plain numbers. Passwords and
tokens are never shown in a log, metric or page; `..._file` keeps them out of the file as well.
"""

PRESET = "### Presets of `pools[].demand`\n"


def text() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *_exporter(), "", SWITCHES + _switches(), "", ADVISOR, *_advisor(), *_presets()])


def _exporter() -> list[str]:
    settable = [each for each in fields(ExporterSettings) if "key" in each.metadata]
    rows = [(f"`{f.metadata['key']}`", _default(f.default), f.metadata["help"]) for f in settable]
    return table(("flag", "default", "meaning"), rows)


def _switches() -> str:
    return ", ".join(f"`{name}`" for name in (*COLLECTOR_GROUPS, *DRIVERS, *COLLECTORS)) + "."


def _advisor() -> Iterator[str]:
    for path, model in _sections(Settings, ""):
        yield f"### `{path}`\n" if path else "### At the top\n"
        if path and model.__doc__:
            yield model.__doc__.split("\n")[0] + "\n"
        yield from table(("key", "value", "default", "meaning"), map(_row, _plain(model)))
        yield ""


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model with its own settings, then those below it, each once."""
    if _plain(model):
        yield path, model
    for name, info in model.model_fields.items():
        below = _model_in(info.annotation)
        if below:
            many = "[]" if get_origin(info.annotation) is list else ""
            yield from _sections(below, f"{path}.{name}{many}".strip("."))


def _plain(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(name, info) for name, info in model.model_fields.items() if not _model_in(info.annotation)]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, Literal):
        return None
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _row(field: tuple[str, FieldInfo]) -> tuple[str, ...]:
    name, info = field
    default = "must be given" if info.is_required() else _default(info.get_default(call_default_factory=True))
    return f"`{name}`", _value(info), default, info.description or ""


def _value(info: FieldInfo) -> str:
    signs = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
    bounds = [f"{sign} {getattr(each, name)}" for each in info.metadata for name, sign in signs if hasattr(each, name)]
    return ", ".join([_kind(info.annotation), *bounds])


_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false", SecretStr: "text, kept secret"}


def _kind(annotation: Any) -> str:
    origin, inside = get_origin(annotation), [each for each in get_args(annotation) if each is not type(None)]
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin is list:
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return f"{_kind(inside[0])}: {_kind(inside[1])}"
    if annotation in _KINDS:
        return _KINDS[annotation]
    return _kind(inside[0])  # an annotated or optional one


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", None) or value == {} or value == []:
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{each}`" for each in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _presets() -> Iterator[str]:
    yield PRESET
    rows = [(f"`{name}`", f"`{each.query}`", each.counts, each.source) for name, each in DEMAND_PRESETS.items()]
    yield from table(("preset", "PromQL", "counts", "documentation"), rows)
    yield ""


if __name__ == "__main__":
    sys.exit(main(PAGE, text(), COMMAND))
