"""YAML documents whose errors name file, line and key, and never quote a value that may be a secret."""

from __future__ import annotations

import difflib
from pathlib import Path

import yaml

from gpu_exporter.config.file import compose_without_aliases


class WebConfigError(Exception):
    """The file is invalid. The message names file, line and key, and says how to fix it."""


class YamlDocument:
    """One YAML file, with typed access to its nodes. All methods raise WebConfigError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def compose(self) -> yaml.Node | None:
        try:
            return compose_without_aliases(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise WebConfigError(
                f"{self.path}: {error.strerror}; give the path of a readable file to --web.config.file"
            ) from error
        except UnicodeDecodeError as error:
            raise WebConfigError(f"{self.path}: not UTF-8; write the file as UTF-8 text") from error
        except yaml.MarkedYAMLError as error:
            # Not the whole message: it quotes the line, which may hold a secret.
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise WebConfigError(f"{self.path}:{line}: not YAML: {error.problem}") from None
        except yaml.YAMLError:
            raise WebConfigError(f"{self.path}: not YAML: it contains characters that YAML does not allow") from None

    def make_error(self, node: yaml.Node, key: str, message: str) -> WebConfigError:
        return WebConfigError(f"{self.path}:{node.start_mark.line + 1}: {key}: {message}")

    def mapping(self, node: yaml.Node | None, name: str, keys: tuple[str, ...] | None) -> dict[str, yaml.Node]:
        """The entries of a section. `keys` are the allowed keys, None allows any."""
        if node is None or is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.make_error(node, name or "the file", "not a mapping; use KEY: VALUE lines")
        entries: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            full = f"{name}.{key}" if name else key
            if keys is not None and key not in keys:
                matches = difflib.get_close_matches(key, keys, n=1)
                hint = f"did you mean {matches[0]}?" if matches else "known keys: " + ", ".join(keys)
                raise self.make_error(key_node, full, f"unknown key; {hint}")
            if key in entries:
                raise self.make_error(key_node, full, "duplicate key; remove one")
            entries[key] = value
        return entries

    def string(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.make_error(node, key, "not a string; use a single value")
        return "" if is_null(node) else str(node.value)

    def string_list(self, node: yaml.Node | None, key: str) -> tuple[str, ...]:
        if node is None or is_null(node):
            return ()
        if not isinstance(node, yaml.SequenceNode):
            raise self.make_error(node, key, "not a list; use [A, B]")
        return tuple(self.string(item, key) for item in node.value)

    def boolean(self, node: yaml.Node, key: str) -> bool:
        if node.tag != "tag:yaml.org,2002:bool":
            raise self.make_error(node, key, "must be true or false")
        return str(node.value).lower() in ("true", "yes", "on")

    def require_one_of(self, node: yaml.Node, key: str, text: str, allowed: tuple[str, ...]) -> str:
        if text not in allowed:
            raise self.make_error(node, key, f"{text!r} is not supported; use one of {', '.join(allowed)}")
        return text


def is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")
