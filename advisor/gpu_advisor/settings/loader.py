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
from gpu_advisor.yaml_text import YamlError, YamlText, dotted, parse_yaml


class ConfigError(Exception):
    """The configuration is invalid. One line per problem: file, line, key, what is wrong, how to fix it."""


#: Keys whose values never appear in a message.
SECRET_KEYS = frozenset({"password", "bearer_token", "headers", "users"})


def load_settings(path: Path) -> Settings:
    """Read and validate a configuration file. Raises ConfigError with one line per problem."""
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a readable YAML file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text: save it as UTF-8") from error
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
        raise ConfigError("\n".join(_error_message(path, document, problem) for problem in problems)) from error


_INDICES = re.compile(r"\.\d+(?=\.|$)")


def _error_message(path: Path, document: YamlText, problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    key = dotted(tuple(part for part in problem["loc"] if part != "[key]")) or "the file"
    if problem["type"] == "extra_forbidden":
        near = _nearest_key(key)
        message = "unknown key; " + (f"did you mean {near}?" if near else "remove it, or see the documentation")
    elif problem["type"] in ("model_type", "dict_type"):
        message = "must be a mapping of keys to values"
    elif not SECRET_KEYS & set(problem["loc"]) and problem["loc"][-1:] != ("url",):
        given = problem.get("input")
        is_named = message.startswith(f"{given} ")
        message += f", not {given!r}" if isinstance(given, str | int | float | bool | None) and not is_named else ""
    return f"{path}:{document.line(tuple(problem['loc']))}: {key}: {message}"


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
