"""YAML that users write: its values, and the line of each key for messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

#: The keys and list positions that lead to a value.
KeyPath = tuple[str | int, ...]


class YamlError(Exception):
    """The text is not YAML, or has keys twice: one line per problem. No value is quoted: it may be a secret."""


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
