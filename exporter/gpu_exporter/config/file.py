"""The YAML file of the settings: nested or dotted keys, each with a value of the right type, and where it is.

PyYAML is only imported if there is a file: it is 1 MiB that an exporter without one does not need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_exporter.config.errors import SettingsError, suggestion

if TYPE_CHECKING:
    import yaml


def compose_without_aliases(text: str) -> yaml.Node | None:
    """The nodes of a YAML document. Raises yaml.YAMLError.

    Aliases are errors: a few lines of them stand for billions of nodes, and no settings here need them.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, "aliases are not supported; write the value out", mark)
            return super().compose_node(parent, index)

    node: yaml.Node | None = yaml.compose(text, Loader=Loader)
    return node


def read_config_file(path: Path, types: Mapping[str, type]) -> dict[str, tuple[str, Any]]:
    """Key -> its place, as `FILE:LINE: KEY`, and value. `types` are those of the known keys. Raises SettingsError."""
    import yaml

    try:
        root = compose_without_aliases(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; give the path of a readable file to --config.file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: too deeply nested; write one KEY: VALUE per line") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError(f"{path}:{root.start_mark.line + 1}: no keys; write one KEY: VALUE per line")
    found: dict[str, tuple[str, Any]] = {}
    for key, node in _flatten(root, yaml.MappingNode, ""):
        place = f"{path}:{node.start_mark.line + 1}: {key}"
        if key not in types:
            below = next((known for known in sorted(types, key=len) if known.startswith(f"{key}.")), "")
            raise SettingsError(
                f"{place}: needs a key below it, such as {below}"
                if below
                else f"{place}: unknown key; {suggestion(key, types)}"
            )
        if key in found:
            raise SettingsError(f"{place}: set twice, first at {found[key][0]}; remove one")
        found[key] = place, _yaml_value(node, types[key], place)
    return found


_TYPE_NAMES = {bool: "true or false", str: "a string (put it in quotes)", int: "an integer"}
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _yaml_value(node: yaml.Node, wanted: type, place: str) -> Any:
    """The value of a node. A number where a text is wanted is the text as written. Raises SettingsError."""
    import yaml

    if wanted is str and node.tag in _NUMBER_TAGS:
        return node.value
    try:
        value = yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{place}: {node.value!r} must be {_TYPE_NAMES[wanted]}: {error}") from error
    if value is None:
        raise SettingsError(f"{place}: has no value; give one, or remove the key")
    if type(value) is not wanted:
        raise SettingsError(f"{place}: {value!r} must be {_TYPE_NAMES[wanted]}")
    return value


def _flatten(node: Any, mapping: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, mapping):
        for key, value in node.value:
            yield from _flatten(value, mapping, f"{prefix}.{key.value}" if prefix else str(key.value))
    else:
        yield prefix, node
