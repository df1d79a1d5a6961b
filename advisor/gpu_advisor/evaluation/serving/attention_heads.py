"""How many attention heads a model has, by its name: sizes of tensor parallelism must divide them. Pure.

Numbers: `num_attention_heads` in each model's config.json, as published with its weights on https://huggingface.co.
"""

from __future__ import annotations

import re

#: Patterns of names without an organization, in lower case, and attention heads. The first that matches holds.
HEADS: tuple[tuple[str, int], ...] = (
    (r"llama-?3\.2-1b|llama-?3(\.[01])?-8b|llama-?2-7b|mistral-7b|mistral-nemo|mixtral-8x7b|ministral-8b", 32),
    (r"llama-?3\.2-3b", 24),
    (r"llama-?2-13b", 40),
    (r"llama-?2-70b|llama-?3(\.[0-3])?-70b|codellama-70b", 64),
    (r"llama-?3\.1-405b|deepseek-(v3|r1)(-\d{4})?$", 128),
    (r"mixtral-8x22b", 48),
    (r"mistral-large", 96),
    (r"qwen2(\.5)?-7b", 28),
    (r"qwen2\.5-(14b|32b)|qwq-32b|qwen3-14b", 40),
    (r"qwen2(\.5)?-72b|qwen3-32b|qwen3-235b", 64),
    (r"qwen3-(4b|8b|30b)", 32),
    (r"gemma-2-9b|gemma-3-12b", 16),
    (r"gemma-2-27b|gemma-3-27b|phi-3(\.5)?-mini", 32),
    (r"phi-4(-reasoning)?$", 40),
    (r"gpt-oss-(20b|120b)", 64),
)


def attention_heads(model: str) -> int | None:
    """The heads of the model that a served name or path names; None if it names none that is known."""
    name = re.sub(r"[_\s]+", "-", model.lower().rstrip("/").rsplit("/", 1)[-1]).replace("meta-llama-", "llama-")
    return next((heads for pattern, heads in HEADS if re.match(rf"(?:{pattern})(?![0-9])", name)), None)


def tensor_parallel_rule(model: str) -> str:
    """Which sizes are possible."""
    heads = attention_heads(model)
    if heads is None:
        return "the size must divide the model's number of attention heads (num_attention_heads in its config.json)"
    sizes = ", ".join(str(size) for size in (1, 2, 4, 8, 16) if heads % size == 0)
    return f"the size must divide the {heads} attention heads of {model}: {sizes}"
