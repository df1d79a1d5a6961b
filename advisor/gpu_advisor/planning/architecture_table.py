"""Parameters of a model type's tensors, from its config: the table `architectures.json`.

`docs/build_architectures.py` writes the table from transformers' own models. An entry has, for each tensor, how many
layers have it and its dimensions, as sums of monomials in the config's fields, and the flags under which it exists.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import nan, prod
from typing import Any

Fields = Mapping[str, Any]

#: Appended to a type that has an entry for its decoder alone and one for the whole encoder-decoder.
SEQ2SEQ = "/seq2seq"


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Equal tensors of a model: `name` with * for the layer's number, `count` of them, with `shape` each."""

    name: str
    count: float
    shape: tuple[float, ...]

    @property
    def numbers(self) -> float:
        return self.count * prod(self.shape)


@cache
def architecture_table() -> dict[str, Any]:
    """`types`: entries by model type; `exceptions`: types without one, and why; `source`: the library's version."""
    table = (resources.files("gpu_advisor.planning") / "architectures.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(table)
    return found


def flatten(config: Fields, prefix: str = "") -> dict[str, Any]:
    """Integers, flags and None with dotted names for nested configs; of lists, how often each value occurs."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = prefix + name
        if isinstance(value, Mapping) and name.endswith("config"):
            found |= flatten(value, f"{key}.")
        elif isinstance(value, list) and value and all(isinstance(each, int | str) for each in value):
            found |= {f"{key}#{each}": count for each, count in Counter(value).items()}
        elif isinstance(value, bool | int) or value is None:
            found[key] = value
    return found


def derived_fields(config: Fields) -> dict[str, int]:
    """Numbers that many configs leave out because other fields imply them."""

    def number(*names: str) -> int:
        values = (config.get(name) for name in names)
        return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), 0)

    hidden, heads = number("hidden_size", "n_embd", "d_model"), number("num_attention_heads", "n_head")
    expand = number("expand") or 2 * bool(number("state_size"))
    rules = {
        "head_dim": hidden // heads if heads else 0,
        "num_key_value_heads": heads,
        "num_kv_heads": heads,
        "n_inner": 4 * hidden,
        "intermediate_size": expand * hidden or 4 * hidden,
        "time_step_rank": -(-hidden // 16),
        "ffn_hidden_size": 4 * hidden,
    }
    return {name: value for name, value in rules.items() if value}


def with_defaults(entry: Fields, config: Fields) -> dict[str, Any]:
    """The config's fields, and those it lacks.

    A missing number follows from the others if the type's default does too, else it is the default. Missing lists, such
    as the kinds of layers, keep the defaults' proportions.
    """
    given = flatten(_written_out(entry["defaults"], config))
    for alias, name in entry.get("aliases", {}).items():
        if given.get(alias) is not None and given.get(name) is None:
            given[name] = given[alias]
    defaults: dict[str, Any] = entry["defaults"]
    fields = {key: value for key, value in defaults.items() if "#" not in key} | given
    layers, usual = _layers(fields), _layers(defaults)
    lists = {key.partition("#")[0] for key in given if "#" in key}
    for key, value in defaults.items():
        if "#" in key and key not in given:
            fields[key] = 0 if key.partition("#")[0] in lists or not usual else round(value * layers / usual)
    for prefix in {"", *(key.rpartition(".")[0] + "." for key in fields if "." in key)}:
        usual_part, part = (derived_fields(_part(of, prefix)) for of in (defaults, fields))
        for name, value in part.items():
            key = prefix + name
            if given.get(key) is None and (defaults.get(key) is None or defaults[key] == usual_part.get(name)):
                fields[key] = value
    return fields


def _written_out(defaults: Fields, config: Fields) -> Fields:
    """With the fields that configs of older versions of the library leave to a shorter one."""
    more: dict[str, Any] = {}
    layers, dense = _layers(config), config.get("first_k_dense_replace")
    if isinstance(dense, int) and layers and "mlp_layer_types#dense" in defaults:
        more["mlp_layer_types"] = ["dense"] * min(dense, layers) + ["sparse"] * max(layers - dense, 0)
    interval = config.get("full_attention_interval")
    if isinstance(interval, int) and layers and "layer_types#linear_attention" in defaults:
        full = layers // interval
        more["layer_types"] = ["full_attention"] * full + ["linear_attention"] * (layers - full)
    if isinstance(config.get("feed_forward_proj"), str):
        more["is_gated_act"] = config["feed_forward_proj"].startswith("gated")
    if "num_decoder_layers" in defaults and config.get("num_layers"):
        more["num_decoder_layers"] = config["num_layers"]
    if "hidden_size" in defaults and config.get("n_embed"):
        more["hidden_size"] = config["n_embed"]
    return more | {key: value for key, value in config.items() if value is not None or key not in more}


def _part(fields: Fields, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in fields.items() if key.startswith(prefix)}


def _layers(fields: Fields) -> int:
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "text_config.num_hidden_layers")
    return next((fields[name] for name in names if isinstance(fields.get(name), int)), 0)


def holds(entry: Fields, config: Fields, fields: Fields) -> bool:
    """Whether the formulas are for this structure.

    Fields that must be equal are; where formulas are for one number of layers, that is the config's; and what the
    config says of which layers are of which kind is what the formulas read, or usual for the type.
    """
    equal: Mapping[str, list[str]] = entry.get("equal", {})
    if not all(fields.get(name) in (None, fields.get(other)) for other in equal for name in equal[other]):
        return False
    defaults: Fields = entry["defaults"]
    fixed = any(
        "*" in tensor["name"] and len(tensor["shape"]) > 1 and tensor["count"].isdigit() and int(tensor["count"]) > 1
        for tensor in entry["tensors"]
        if _exists(tensor, fields)
    )
    if fixed and any(fields.get(key) != defaults[key] for key in defaults if _LAYERS.search(key)):
        return False
    read = _fields_read(entry)
    return all(
        _says_nothing_new(key, value, defaults, read)
        for key, value in config.items()
        if _KINDS.search(key) and not _NO_KINDS.search(key)
    )


_LAYERS = re.compile(r"(?:^|\.)(?:num_(?:hidden_|decoder_|encoder_)?layers|n_layers?|(?:en|de)coder_layers)$")
#: Fields by which configs say which layers are of which kind; and those of attention's windows, the same parameters.
_KINDS = re.compile(r"_step$|interval|_period|only_layers|pattern|idxs|indices|layer_ids|first_k|moe_layer|layer.*type")
_NO_KINDS = re.compile(r"window|sliding|rope|max_position|time_step")
#: Fields that `_written_out` replaces.
_SPELLED_OUT = {"first_k_dense_replace": "mlp_layer_types", "full_attention_interval": "layer_types"}
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def _fields_read(entry: Fields) -> set[str]:
    texts = (text for tensor in entry["tensors"] for text in (tensor["count"], *tensor["shape"], *tensor.get("if", ())))
    return {name for text in texts for name in re.findall(r"[A-Za-z_][\w.#]*", text)}


def _says_nothing_new(key: str, value: Any, defaults: Fields, read: set[str]) -> bool:
    spelled_out = _SPELLED_OUT.get(key, key)
    if not value or key in read or any(name.startswith(f"{spelled_out}#") for name in read):
        return True
    if value == 1 and key.endswith("_step"):
        return True
    if isinstance(value, list) and all(isinstance(each, int | str) for each in value):
        counts = Counter(value)
        return counts.keys() <= _ATTENTION or all(defaults.get(f"{key}#{each}") == n for each, n in counts.items())
    return bool(defaults.get(key) == value)


def _exists(tensor: Fields, fields: Fields) -> bool:
    return all(bool(fields.get(key)) == value for key, value in tensor.get("if", {}).items())


def parameters_of_tensors(entry: Fields, fields: Fields) -> Iterator[TensorGroup]:
    """The tensors that exist with these fields."""
    for tensor in entry["tensors"]:
        if _exists(tensor, fields):
            count, *shape = (evaluate(text, fields) for text in (tensor["count"], *tensor["shape"]))
            yield TensorGroup(tensor["name"], count, tuple(shape))


def format_terms(terms: Sequence[tuple[float, Mapping[str, int]]]) -> str:
    """As in the table: `2*hidden_size + hidden_size/num_attention_heads`."""
    parts = []
    for factor, powers in terms:
        above = [name for name, power in powers.items() for _ in range(power)]
        below = [name for name, power in powers.items() for _ in range(-power)]
        number = [] if factor == 1 and above else [f"{factor:.10g}"]
        parts.append("/".join(["*".join(number + above), *below]))
    return " + ".join(parts)


def evaluate(text: str, fields: Fields) -> float:
    """The expression's value; NaN where no expression was found, or a field that divides is 0."""
    try:
        return sum(
            factor * prod(float(fields.get(name) or 0) ** power for name, power in powers)
            for factor, powers in _parse(text)
        )
    except (ZeroDivisionError, ValueError):
        return nan


@cache
def _parse(text: str) -> tuple[tuple[float, tuple[tuple[str, int], ...]], ...]:
    found = []
    for term in text.split(" + "):
        product, *below = term.split("/")
        factor, powers = 1.0, [(name, -1) for name in below]
        for part in product.split("*"):
            if part[0].isdigit() or part[0] == "-":
                factor *= float(part)
            else:
                powers.append((part, 1))
        found.append((factor, tuple(powers)))
    return tuple(found)
