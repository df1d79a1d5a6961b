"""Tensors of a model that the table of architectures lacks, from transformers itself, if it is installed.

The model is built on PyTorch's meta device, which allocates nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gpu_advisor.planning.architecture_table import TensorGroup, flatten


def decoded(value: Any) -> Any:
    """A config's JSON with the infinities that transformers writes as {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        return (
            float(value["__float__"]) if "__float__" in value else {key: decoded(each) for key, each in value.items()}
        )
    return [decoded(each) for each in value] if isinstance(value, list) else value


def count_on_meta(config: Mapping[str, Any]) -> tuple[list[TensorGroup], dict[str, Any]] | None:
    """The model's tensors and its complete config's fields; None if torch or transformers is not installed, or
    transformers cannot build the model."""
    try:
        import torch
        from transformers import (
            CONFIG_MAPPING,
            MODEL_FOR_CAUSAL_LM_MAPPING,
            AutoModelForCausalLM,
            AutoModelForSeq2SeqLM,
        )
    except ImportError:
        return None
    try:
        complete = CONFIG_MAPPING[config["model_type"]].from_dict(decoded(config))
        causal = type(complete) in MODEL_FOR_CAUSAL_LM_MAPPING
        mapping = AutoModelForCausalLM if causal else AutoModelForSeq2SeqLM
        with torch.device("meta"):
            model = mapping.from_config(complete)  # type: ignore[no-untyped-call]
        model.tie_weights()
    except Exception:  # noqa: BLE001 - a config may be invalid in any way
        return None
    groups: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for name, parameter in model.named_parameters():
        groups[re.sub(r"\.\d+(?=\.|$)", ".*", name), tuple(parameter.shape)] += 1
    return [TensorGroup(name, count, shape) for (name, shape), count in groups.items()], flatten(complete.to_dict())
