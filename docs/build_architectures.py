"""Writes the planner's table of architectures: every parameter tensor of transformers' language models, by formula.

python docs/build_architectures.py [TYPE ...]      probes all types (about half an hour), or these

For each model type of transformers' causal-LM and sequence-to-sequence mappings whose default config builds on `meta`,
the builder changes one field of the config at a time, then pairs of fields, builds the model, and finds for each
dimension of each tensor the expression in the config's fields that explains all probes. Random joint changes, which no
expression was fitted to, decide whether a type is exact. Needs torch and transformers (`.[dev]`); the planner needs
neither, it reads the table.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from gpu_advisor.planning.architecture_table import (
    SEQ2SEQ,
    derived_fields,
    flatten,
    format_terms,
    holds,
    parameters_of_tensors,
    with_defaults,
)
from gpu_advisor.planning.counted_model import decoded

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.simplefilter("ignore")

TABLE = Path(__file__).resolve().parents[1] / "advisor/gpu_advisor/planning/architectures.json"
COMMAND = "python docs/build_architectures.py"

#: Fields that set no shape; probing them would only cost time.
_NO_SHAPE = re.compile(
    r"token|_ids?$|^(?:eos|bos|pad|sep)|topk|top_k|num_experts_per|moe_k$|n_group|logits_to_keep|beam|chunk|return"
    r"|output_|use_cache|gradient|pretraining_tp|dropout|is_decoder|cross_attention|scale|seed|norm_topk|initializer"
    r"|kernels?$|residual|jitter|eps$|^quantization|rope_(?:theta|scaling|parameters)|is_encoder_decoder"
)
_SECONDS_A_TYPE = 240
Config = dict[str, Any]


def changed(config: Config, changes: Config) -> Config:
    """A deep copy with dotted fields replaced."""
    copy = json.loads(json.dumps(config))
    for key, value in changes.items():
        *path, name = key.split(".")
        at = copy
        for part in path:
            at = at[part]
        at[name] = value
    return copy


class Prober:
    """Builds models of one type on meta and describes them: tensor groups with shapes and how many layers have them."""

    def __init__(self, model_type: str, seq2seq: bool) -> None:
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

        self.make = CONFIG_MAPPING[model_type.removesuffix(SEQ2SEQ)]
        speech = model_type.startswith("whisper")
        whole = AutoModelForSpeechSeq2Seq if speech else AutoModelForSeq2SeqLM
        self.auto = whole if seq2seq else AutoModelForCausalLM
        self.until = time.monotonic() + _SECONDS_A_TYPE

    def build(self, config: Config | None, **more: Any) -> tuple[Config, dict[str, tuple[tuple[int, ...], int]], int]:
        import torch

        if time.monotonic() > self.until:
            raise TimeoutError("too slow")
        object_ = self.make(**more) if config is None else self.make.from_dict(decoded(config))
        for part in (object_, getattr(object_, "text_config", None)):
            if part is not None:
                part._attn_implementation = "eager"
        with torch.device("meta"):
            model = self.auto.from_config(object_)
        model.tie_weights()
        groups: dict[tuple[str, tuple[int, ...]], int] = Counter()
        for name, parameter in model.named_parameters():  # without duplicates: tied tensors count once
            groups[re.sub(r"\.\d+(?=\.|$)", ".*", name), tuple(parameter.shape)] += 1
        total = sum(int(np.prod(shape)) * count for (_, shape), count in groups.items())
        names = Counter(name for name, _ in groups)
        described = {
            name if names[name] == 1 else f"{name}@{_rank(shape, [s for n, s in groups if n == name])}": (shape, count)
            for (name, shape), count in groups.items()
        }
        return json.loads(object_.to_json_string(use_diff=False)), described, total


def _rank(shape: tuple[int, ...], shapes: list[tuple[int, ...]]) -> str:
    return f"{len(shape)}:{sorted(shapes).index(shape)}"


def explain(values: np.ndarray, fields: dict[str, np.ndarray]) -> list[tuple[float, dict[str, int]]] | None:
    """Coefficients and exponents of a sum of few monomials that gives `values` at every probe; None if none does."""
    if np.ptp(values) == 0:
        return [(float(values[0]), {})]
    names = sorted(fields)
    if len(names) > 5:
        return None
    if not names:
        return None
    exponents = [each for each in product((-1, 0, 1, 2), repeat=len(names)) if sum(map(abs, each)) <= 4]
    exponents.sort(key=lambda each: (sum(map(abs, each)), sum(one < 0 for one in each)))
    with np.errstate(all="ignore"):
        columns = [np.prod([fields[n].astype(float) ** e for n, e in zip(names, each, strict=True)], axis=0)
                   if any(each) else np.ones(len(values)) for each in exponents]  # fmt: skip
    usable = [k for k, column in enumerate(columns) if np.isfinite(column).all()]
    scale = np.abs(values).max()
    for terms in (1, 2, 3):
        if terms == 3:
            usable = [k for k in usable if all(e >= 0 for e in exponents[k]) and sum(exponents[k]) <= 3]
        for chosen in combinations(usable, terms):
            matrix = np.stack([columns[k] for k in chosen], axis=1)
            solution, *_ = np.linalg.lstsq(matrix, values.astype(float), rcond=None)
            solution = np.round(solution * 24) / 24
            if np.abs(matrix @ solution - values).max() <= 1e-6 * scale and np.all(solution != 0):
                return [
                    (float(c), {n: e for n, e in zip(names, exponents[k], strict=True) if e})
                    for c, k in zip(solution, chosen, strict=True)
                ]
    return None


def probe(model_type: str, seq2seq: bool) -> dict[str, Any]:
    """The type's entry in the table. Raises whatever the model raises if its default config does not build."""
    prober = Prober(model_type, seq2seq)
    default, default_groups, _ = prober.build(None)
    base, groups = _resolved(prober, *_smaller(prober, default, default_groups))
    flat = flatten(base)
    numbers = [k for k, v in flat.items() if isinstance(v, int) and not isinstance(v, bool) and "#" not in k
               and v > 0 and not _NO_SHAPE.search(k.rsplit(".", 1)[-1])]  # fmt: skip
    flags = [k for k, v in flat.items() if isinstance(v, bool) and not _NO_SHAPE.search(k.rsplit(".", 1)[-1])]
    flags += [k for k, v in flat.items() if k.endswith("tie_word_embeddings") and k not in flags]
    probes: list[tuple[Config, dict[str, tuple[tuple[int, ...], int]]]] = [(flat, groups)]
    relevant: dict[str, list[int]] = {}
    equal: dict[str, list[str]] = {}  # fields that must stay equal to others for the structure to be this one
    for change in _list_changes(base):
        found = _try(prober, changed(base, change))
        if found is not None and found[1].keys() == groups.keys() and found[1] != groups:
            probes.append(found)
    for name in numbers:
        for factor in (2, 3, 0.5, 4):
            value = int(flat[name] * factor)
            if value < 1 or len(relevant.get(name, ())) == 2:
                continue
            found = _try(prober, _set(base, name, value))
            if found is None:
                continue
            if found[1] == groups:
                break
            if found[1].keys() != groups.keys():
                # Another structure unless fields that are equal change together, as widths without a projection.
                same = [other for other in numbers if flat[other] == flat[name] and other != name]
                found = _try(prober, changed(base, dict.fromkeys([name, *same], value))) if same else None
                if found is None or found[1].keys() != groups.keys() or found[1] == groups:
                    continue
                equal.update({name: same})
            relevant.setdefault(name, []).append(value)
            probes.append(found)
    if not any(_WIDTHS.search(name) for name in relevant):
        for found, name, value in _coupled_widths(prober, base, flat, groups, numbers):
            relevant.setdefault(name, []).append(value)
            probes.append(found)
    nullable = [name for name in relevant if _MAY_BE_OFF.search(name)]
    conditions: dict[str, dict[str, bool]] = defaultdict(dict)
    extra: dict[str, tuple[tuple[int, ...], int]] = {}
    switches: dict[str, list[str]] = {}  # flags that change shapes
    for name in (*flags, *nullable):  # a number may be absent, which turns a part of the model off
        found = _try(prober, changed(base, {name: _off(name) if name in nullable else not flat[name]}))
        if found is None or found[1] == groups:
            continue
        for group in groups.keys() - found[1].keys():
            conditions[group][name] = bool(flat[name])
        for group in found[1].keys() - groups.keys():
            conditions[group][name] = not flat[name]
            extra[group] = found[1][group]
        common = groups.keys() & found[1].keys()
        if name not in nullable:
            switches[name] = [group for group in groups if group in common and found[1][group] != groups[group]]
            if not switches[name]:
                del switches[name]
    pairs = _pairs(probes, groups, relevant)
    for one, two in pairs:
        both = _set(_set(base, one, relevant[one][0]), two, relevant[two][0])
        found = _try(prober, both)
        if found is not None and found[1].keys() == groups.keys():
            probes.append(found)
    tensors = _expressions(probes, groups)
    more = _extra_tensors(prober, base, flat, extra, conditions, relevant)
    variants = _switched(prober, base, flat, switches, numbers)
    for name, group_names in switches.items():
        for group in group_names:
            conditions[group][name] = bool(flat[name])
    entry = {
        "aliases": {a: n for a, n in (prober.make.attribute_map or {}).items() if n in relevant},
        "defaults": {k: v for k, v in flatten(default).items()
                     if k in relevant or "#" in k or any(k in each for each in conditions.values()) or k in numbers
                     or k.rsplit(".", 1)[-1] in _ALWAYS},
        "tensors": [
            *({"name": name, "if": conditions.get(name, {}), **what} for name, what in {**tensors, **more}.items()),
            *({"name": name, "if": conditions.get(name, {}) | {flag: not flat[flag]}, **what}
              for flag, found in variants.items() for name, what in found.items()),
        ],
    }  # fmt: skip
    if equal:
        entry["equal"] = {name: [each for each in others if each in relevant] for name, others in equal.items()}
        entry["equal"] = {name: others for name, others in entry["equal"].items() if others}
    entry["exact"] = _scales(relevant) and _check(prober, base, relevant, entry)
    return entry


_ALWAYS = frozenset({
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
    "head_dim", "num_experts_per_tok", "moe_top_k", "top_k", "moe_topk", "num_local_experts", "num_experts",
    "n_routed_experts", "kv_lora_rank",
    "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "moe_intermediate_size", "n_embd", "n_layer",
    "n_head", "n_inner", "d_model", "num_layers", "max_position_embeddings", "n_positions", "tie_word_embeddings",
    "decoder_layers", "encoder_layers", "d_ff", "d_kv", "num_heads", "ffn_dim", "shared_expert_intermediate_size",
})  # fmt: skip


def _set(base: Config, name: str, value: int) -> Config:
    """With a field changed. Lists of the layers' kinds are derived again if their number changes."""
    if not re.search(r"layers?$", name):
        return changed(base, {name: value})
    prefix = name.rpartition(".")[0]
    part = base[prefix] if prefix else base
    lists = [k for k, v in part.items() if isinstance(v, list) and len(v) == part.get(name.rpartition(".")[2])]
    return changed(base, {f"{prefix}.{k}" if prefix else k: None for k in lists} | {name: value})


def _list_changes(base: Config) -> list[Config]:
    """One layer of another kind, for each list of kinds."""
    found = []
    for prefix, of in [("", base), *((f"{k}.", v) for k, v in base.items() if isinstance(v, dict))]:
        for name, value in of.items():
            if isinstance(value, list) and len(value) > 2 and all(isinstance(each, str | int) for each in value):
                kinds = Counter(value).most_common(2)
                if len(kinds) == 2:
                    at = len(value) - 1 - value[::-1].index(kinds[0][0])
                    found.append({prefix + name: [*value[:at], kinds[1][0], *value[at + 1 :]]})
    return found


def _try(prober: Prober, config: Config) -> tuple[Config, dict[str, tuple[tuple[int, ...], int]]] | None:
    found = _try_raw(prober, config)
    return found and (flatten(found[0]), found[1])


def _smaller(prober: Prober, default: Config, groups: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The default with few layers, if these have all kinds of layers: quicker to build."""
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        if isinstance(default.get(name), int):
            for layers in (4, 6, 8, 12):
                if layers < default[name]:
                    found = _try_raw(prober, None, **{name: layers})
                    if found is not None and found[1].keys() == groups.keys():
                        return found
    return default, groups


def _resolved(prober: Prober, base: Config, groups: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """With explicit numbers where a default leaves them to other fields."""
    for prefix, of in [("", base), *((f"{k}.", v) for k, v in base.items() if isinstance(v, dict))]:
        for name, value in derived_fields(of).items():
            if of.get(name) is not None:
                continue
            found = _try_raw(prober, changed(base, {prefix + name: value}))
            if found is not None and found[1] == groups:
                base = found[0]
        for name, value in of.items():
            if value == 0 and not isinstance(value, bool) and re.search(r"dense|shared", name):
                found = _try_raw(prober, changed(base, {prefix + name: 1}))
                if found is not None and groups.keys() < found[1].keys():
                    base, groups = found
    return base, groups


def _try_raw(prober: Prober, config: Config | None, **fields: Any) -> tuple[Config, dict[str, Any]] | None:
    try:
        built, groups, _ = prober.build(config, **fields)
    except TimeoutError:
        raise
    except Exception:  # noqa: BLE001 - an invalid combination of fields, of whatever kind
        return None
    return built, groups


#: Numbers that may be 0 or absent, which leaves a part of the model out.
_MAY_BE_OFF = re.compile(r"rank|shared|n_inner|mtp|nextn|dense")
_WIDTHS = re.compile(r"(?:^|\.)(?:hidden_size|n_embd|d_model|model_dim|dim)$")


def _coupled_widths(
    prober: Prober, base: Config, flat: Config, groups: dict[str, Any], numbers: list[str]
) -> list[tuple[Any, str, int]]:
    """Probes of a width that can only change together with another number, as state-space models' with their heads."""
    for width in (name for name in numbers if _WIDTHS.search(name)):
        for other in numbers:
            probes = [
                (_try(prober, changed(base, {width: k * flat[width], other: k * flat[other]})), width, k * flat[width])
                for k in (2, 3)
                if other != width
            ]
            good = [each for each in probes if each[0] is not None and each[0][1].keys() == groups.keys() != groups]
            if len(good) == 2:
                return good
    return []


def _off(name: str) -> int | None:
    return 0 if "dense" in name or "shared" in name else None


def _scales(relevant: dict[str, list[int]]) -> bool:
    """Whether the probes varied width and vocabulary: else no expression can be trusted."""
    return any(_WIDTHS.search(name) for name in relevant) and any("vocab_size" in name for name in relevant)


def _pairs(probes: list[Any], groups: dict[str, Any], relevant: dict[str, list[int]]) -> list[tuple[str, str]]:
    """Pairs of fields that change the same number of some tensor."""
    flat = probes[0][0]
    depends: dict[tuple[str, int], set[str]] = defaultdict(set)
    for fields, found in probes[1:]:
        changed_fields = {name for name in relevant if fields.get(name) != flat.get(name)}
        for group, (shape, count) in found.items():
            base_shape, base_count = groups[group]
            for k in range(len(base_shape)):
                if len(shape) == len(base_shape) and shape[k] != base_shape[k]:
                    depends[group, k] |= changed_fields
            if count != base_count:
                depends[group, -1] |= changed_fields
    found_pairs = {pair for names in depends.values() for pair in combinations(sorted(names), 2)}
    return sorted(found_pairs)[:60]


def _expressions(probes: list[Any], groups: dict[str, Any]) -> dict[str, dict[str, Any]]:
    names = {k for fields, _ in probes for k, v in fields.items() if isinstance(v, int) and not isinstance(v, bool)}
    table = {k: np.array([int(fields.get(k) or 0) for fields, _ in probes]) for k in names}
    varying = {k: column for k, column in table.items() if np.ptp(column)}
    cache: dict[tuple[int, ...], Any] = {}

    def fit(values: list[int]) -> Any:
        key = tuple(values)
        if key not in cache:
            column = np.array(values)
            cache[key] = _fit(column, varying)
        return cache[key]

    found = {}
    for group, (shape, _) in groups.items():
        dims = [fit([int(each[group][0][k]) if len(each[group][0]) > k else 0 for _, each in probes])
                for k in range(len(shape))]  # fmt: skip
        count = fit([each[group][1] for _, each in probes])
        found[group] = {"count": _text(count), "shape": [_text(each) for each in dims]}
    return found


def _text(terms: Any) -> str:
    return "?" if terms is None else format_terms(terms)


def _switched(
    prober: Prober, base: Config, flat: Config, switches: dict[str, list[str]], numbers: list[str]
) -> dict[str, dict[str, Any]]:
    """By flag, the tensors whose shapes it changes, as they are with it turned."""
    found = {}
    for flag, names in switches.items():
        turned = changed(base, {flag: not flat[flag]})
        first = _try(prober, turned)
        if first is None:
            continue
        probes, moving = [first], {}
        for name in numbers:
            for value in (2 * flat[name], 3 * flat[name]):
                each = _try(prober, _set(turned, name, value))
                if each is not None and set(names) <= each[1].keys() and any(each[1][n] != first[1][n] for n in names):
                    probes.append(each)
                    moving.setdefault(name, value)
        for one, two in combinations(sorted(moving), 2):
            each = _try(prober, _set(_set(turned, one, moving[one]), two, moving[two]))
            if each is not None and set(names) <= each[1].keys():
                probes.append(each)
        found[flag] = _expressions([(f, {n: g[n] for n in names}) for f, g in probes], {n: first[1][n] for n in names})
    return found


def _fit(column: np.ndarray, varying: dict[str, np.ndarray]) -> Any:
    """By the fields that matter: those with a probe in which they alone change, and the value with them."""
    needed: set[str] = set()
    base = {k: v[0] for k, v in varying.items()}
    for row in range(1, len(column)):
        changed_fields = [k for k, v in varying.items() if v[row] != base[k]]
        plain = [k for k in changed_fields if "#" not in k]
        if column[row] != column[0]:
            needed |= set(plain if len(plain) <= 2 else ()) | {k for k in changed_fields if "#" in k}
    lists = {k for k in needed if "#" in k}
    for names in (needed - lists, needed, lists):
        found = explain(column, {k: varying[k] for k in sorted(names)[:5]})
        if found is not None:
            return found
    return None


def _extra_tensors(
    prober: Prober, base: Config, flat: Config, extra: dict[str, Any], conditions: Any, relevant: dict[str, list[int]]
) -> dict[str, Any]:
    """Expressions of tensors that exist only with a flag turned."""
    found = {}
    by_flag: dict[str, list[str]] = defaultdict(list)
    for group in extra:
        by_flag[next(iter(conditions[group]))].append(group)
    for flag, names in by_flag.items():
        turned = {flag: _off(flag) if not isinstance(flat[flag], bool) else not flat[flag]}
        probes = [_try(prober, changed(base, turned))]
        for name, values in relevant.items():
            if name != flag and not isinstance(flat[name], bool):
                probes += [_try(prober, changed(base, turned | {name: value})) for value in values]
        good = [each for each in probes if each is not None and set(names) <= each[1].keys()]
        if good:
            groups = {name: good[0][1][name] for name in names}
            found |= _expressions([(f, {n: g[n] for n in names}) for f, g in good], groups)
    return found


def _check(prober: Prober, base: Config, relevant: dict[str, list[int]], entry: dict[str, Any]) -> bool:
    """The default, which may have more layers than the probes, and joint changes that no expression was fitted to."""
    random_ = random.Random(1)
    default, _, total = prober.build(None)
    errors = [abs(_counted(entry, default) / total - 1)]
    for _ in range(12):
        names = random_.sample(sorted(relevant), k=min(len(relevant), 4))
        found = None
        try:
            config = base
            for name in names:
                config = _set(config, name, random_.choice(relevant[name]))
            built, _, total = prober.build(config)
            if not holds(entry, with_defaults(entry, built)):
                continue
            found = _counted(entry, built) / total - 1
        except TimeoutError:
            break
        except Exception:  # noqa: BLE001 - as in _try_raw
            continue
        errors.append(abs(found))
        if len(errors) == 5:
            break
    return len(errors) > 1 and all(error < 0.005 for error in errors)


def _counted(entry: dict[str, Any], config: Config) -> float:
    return sum(each.numbers for each in parameters_of_tensors(entry, with_defaults(entry, config)))


def _as_text(table: dict[str, Any]) -> None:
    """Rewrites entries of an earlier form."""
    for entry in table["types"].values():
        for tensor in entry["tensors"]:
            if "dims" in tensor:
                tensor["shape"] = [_text(each) for each in tensor.pop("dims")]
                tensor["count"] = _text(tensor["count"])
            if not tensor.get("if", True):
                del tensor["if"]


#: Formulas of the probes that miss configs with other kinds of layers, or whose widths only change together.
_SEVERAL_KINDS = ("granitemoehybrid", "falcon_h1", "nemotron_h", "zamba", "zamba2", "lfm2")


def main(argv: list[str]) -> int:
    import transformers
    from transformers.models.auto import modeling_auto as auto

    types = dict.fromkeys(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, False)
    # Types of both mappings have two entries: their decoder alone, and the whole.
    whole = [*auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, "whisper"]
    types |= {name + (SEQ2SEQ if name in types else ""): True for name in whole}
    if unknown := [name for name in argv if name not in types]:
        print(f"{', '.join(unknown)}: no model type of transformers; usage: {__doc__.splitlines()[2]}", file=sys.stderr)
        return 2
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"types": {}, "exceptions": {}}
    _as_text(table)
    table["source"] = f"transformers {transformers.__version__}"
    for name in argv or types:
        started = time.monotonic()
        table["types"].pop(name, None)
        table["exceptions"].pop(name, None)
        try:
            entry = {"exact": False} if name in _SEVERAL_KINDS else probe(name, types[name])
            if entry.pop("exact"):
                table["types"][name] = entry
            else:
                table["exceptions"][name] = "no formula explains all probes"
        except Exception as error:  # noqa: BLE001 - whatever a default config raises is the exception's reason
            table["exceptions"][name] = f"does not build: {type(error).__name__}"
        print(name, table["exceptions"].get(name, "exact"), f"{time.monotonic() - started:.0f} s", flush=True)
        for part in ("types", "exceptions"):
            table[part] = dict(sorted(table[part].items()))
        TABLE.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
