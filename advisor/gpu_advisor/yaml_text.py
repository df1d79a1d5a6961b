"""YAML that users write: its values, the line of each key, and messages with file, line, key and a remedy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: The keys and list positions that lead to a value.
KeyPath = tuple[str | int, ...]


class YamlError(Exception):
    """The text is not YAML, or has keys twice: one line per problem. No value is quoted: it may be a secret.

    Also of a file that cannot be read.
    """


@dataclass(frozen=True, slots=True)
class YamlText:
    """`values` are None for an empty text."""

    values: Any
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Of the path, or of the nearest one above it that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def read_yaml(path: Path) -> YamlText:
    """Raises YamlError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(f"{path}: {error.strerror}; give the path of a readable YAML file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise YamlError(f"{path}:{line}: not UTF-8 text: save it as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, file: str) -> YamlText:
    """`file` is for messages. Raises YamlError."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return YamlText(None, {})
        lines: dict[KeyPath, int] = {(): root.start_mark.line + 1}
        duplicates: dict[KeyPath, int] = {}
        for path, line in _places(root, ()):
            if path in lines and not any(path[:length] in duplicates for length in range(1, len(path))):
                duplicates[path] = line
            lines[path] = line
        found = YamlText(loader.construct_document(root), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(f"{file}:{line}: not YAML: {error.problem}: check quotes, brackets and indentation") from error
    except yaml.YAMLError as error:
        raise YamlError(f"{file}:1: not YAML: {error}") from error
    except RecursionError as error:
        raise YamlError(f"{file}:1: recursive alias or too deeply nested: write it out") from error
    if duplicates:
        raise YamlError(
            "\n".join(f"{file}:{line}: {dotted(key)}: duplicate key: remove one" for key, line in duplicates.items())
        )
    return found


#: What a model says of values that are no mapping, by Pydantic's type of the error.
_NO_MAPPING = frozenset({"model_type", "model_attributes_type", "dict_type"})


def explain_problems(
    document: YamlText,
    file: str,
    problems: Iterable[Any],
    suggest: Callable[[str], str],
    secret_keys: Collection[str] = (),
) -> str:
    """A line for each problem that a Pydantic model found in the document's values (`ValidationError.errors()`).

    `suggest`: an unknown key, dotted -> what to append on how to fix it. Values below `secret_keys` are not quoted.
    """
    return "\n".join(_explain(document, file, each, suggest, secret_keys) for each in problems)


def _explain(
    document: YamlText, file: str, problem: Any, suggest: Callable[[str], str], secret_keys: Collection[str]
) -> str:
    place: KeyPath = ()
    for part in problem["loc"]:  # also has names of a union's members, which are not in the file
        place = (*place, part) if (*place, part) in document.lines else place
    given, message = problem.get("input"), str(problem["msg"]).removeprefix("Value error, ")
    key = dotted(place) or "the file"
    if problem["type"] == "missing":
        key, message = dotted((*place, problem["loc"][-1])), "is missing: add it"
    elif problem["type"] == "extra_forbidden":
        message = f"unknown key{suggest(key)}"
    elif problem["type"] in _NO_MAPPING:
        message = "must be a mapping of keys to values"
    elif not set(secret_keys).intersection(problem["loc"]) and isinstance(given, str | int | float | bool | None):
        message += "" if message.startswith(f"{given} ") else f", not {given!r}"
    return f"{file}:{document.line(place)}: {key}: {message}"


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As SafeLoader, which raises ValueError for 2026-99-99, and other errors for text that is not of its tag."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            problem = f"this is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _places(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """Each key and list item within a node, outer ones first."""
    inner: list[tuple[str | int, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        inner = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        inner = [(index, value, value) for index, value in enumerate(node.value)]
    for part, start, value in inner:
        yield (*path, part), start.start_mark.line + 1
        yield from _places(value, (*path, part))
