"""Load settings from a YAML file; errors name file, line and key and say how to fix them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gpu_advisor.settings.resource_manager_file import MOVED_KEYS, MovedKeyError, move_keys, original_path
from gpu_advisor.settings.root import Settings
from gpu_advisor.yaml_text import YamlError, dotted, explain_problems, read_yaml


class ConfigError(Exception):
    """The configuration is invalid. One line per problem: file, line, key, what is wrong, how to fix it."""


#: Keys whose values never appear in a message.
SECRET_KEYS = frozenset({"password", "bearer_token", "headers", "users", "url"})


def load_settings(path: Path) -> Settings:
    """Read and validate a configuration file. Raises ConfigError with one line per problem."""
    try:
        document = read_yaml(path)
    except YamlError as error:
        raise ConfigError(str(error)) from error
    values = document.values
    given = values if isinstance(values, dict) else {}
    try:
        return Settings.model_validate({} if values is None else move_keys(given) if given else values)
    except MovedKeyError as error:
        raise ConfigError(f"{path}:{document.line(error.path)}: {dotted(error.path)}: {error}") from error
    except ValidationError as error:
        problems = [{**problem, "loc": original_path(tuple(problem["loc"]), given)} for problem in error.errors()]
        raise ConfigError(explain_problems(document, str(path), problems, _suggest_key, SECRET_KEYS)) from error


_INDICES = re.compile(r"\.\d+(?=\.|$)")


def _suggest_key(unknown: str) -> str:
    near = _nearest_key(unknown)
    return f"; did you mean {near}?" if near else "; remove it, or see the documentation"


def _nearest_key(key: str) -> str:
    """The key most like a dotted one by its name; of several sections' keys, the one in the most similar section.

    Only the name of a key in the same section, the dotted key of another's. "" if none is similar.
    """
    section, _, name = _INDICES.sub("", key).rpartition(".")
    known = [*_keys(Settings), *MOVED_KEYS]
    near = difflib.get_close_matches(name, sorted({each.rpartition(".")[2] for each in known}), n=1)
    if not near:
        return ""
    sections = [each.rpartition(".")[0] for each in known if each.rpartition(".")[2] == near[0]]
    best = max(sections, key=lambda each: (each == section, difflib.SequenceMatcher(None, each, section).ratio()))
    return near[0] if best == section else f"{best}.{near[0]}".lstrip(".")


def _keys(model: type[BaseModel], section: str = "") -> Iterator[str]:
    """All keys of a model and of the models within it, dotted."""
    for name, info in model.model_fields.items():
        yield f"{section}{name}"
        for inner in _models(info.annotation):
            yield from _keys(inner, f"{section}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
