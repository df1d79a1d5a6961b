"""Parameters read from a config.json, against the models that transformers builds on the meta device."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning import counted_model, model_configs
from gpu_advisor.planning.architecture_table import architecture_table, evaluate, format_terms, with_defaults
from gpu_advisor.planning.model_configs import shape_from_config

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TOLERANCE = 0.005

#: Default configs; and changes to them, as published models have.
TYPES = (
    "apertus", "arcee", "bert-generation", "biogpt", "bitnet", "bloom", "codegen", "cohere", "cohere2",
    "deepseek_v2", "deepseek_v3", "exaone4", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3_text", "glm",
    "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "helium",
    "llama", "llama4_text", "mamba", "minimax", "mistral", "mixtral", "mpt", "mt5", "olmo", "olmo2", "olmoe",
    "opt",
    "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm",
    "starcoder2", "t5", "xglm",
)  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3.2-1B": ("llama", {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "num_attention_heads": 32, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True}),
    "Qwen3-30B-A3B": ("qwen3_moe", {
        "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128}),
    "DeepSeek-V2-Lite": ("deepseek_v2", {
        "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
        "num_attention_heads": 16, "num_key_value_heads": 16, "n_routed_experts": 64, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "vocab_size": 102400, "q_lora_rank": None, "kv_lora_rank": 512}),
    "Gemma-2-9B": ("gemma2", {
        "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 256}),
    "T5-3B": ("t5", {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_decoder_layers": 24,
                     "num_heads": 32}),
    "flan-T5-XL": ("t5", {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_decoder_layers": 24,
                          "num_heads": 32, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "Falcon-40B": ("falcon", {"hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128,
                              "num_kv_heads": 8, "new_decoder_architecture": True}),
    "Pythia-1B": ("gpt_neox", {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                               "num_attention_heads": 8, "vocab_size": 50304}),
    "gpt-oss-20B": ("gpt_oss", {"num_hidden_layers": 24, "num_local_experts": 32}),
    "OPT-6.7B": ("opt", {"hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32, "num_attention_heads": 32,
                         "word_embed_proj_dim": 4096}),
}  # fmt: skip


def built(config: Any) -> int:
    """Parameters of the model on the meta device; tied ones count once."""
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForSeq2SeqLM
    with torch.device("meta"):
        model = auto.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def check(config: Any) -> None:
    truth = built(config)
    for written in (config.to_json_string(use_diff=True), config.to_json_string(use_diff=False)):
        read = {"model_type": config.model_type} | json.loads(written)
        assert shape_from_config(read).parameters == pytest.approx(truth, rel=TOLERANCE)


@pytest.fixture
def only_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where transformers is not installed."""
    monkeypatch.setattr(model_configs, "count_on_meta", lambda _config: None)


@pytest.mark.usefixtures("only_the_table")
@pytest.mark.parametrize("model_type", TYPES)
def test_default_configs(model_type: str) -> None:
    check(transformers.CONFIG_MAPPING[model_type]())


@pytest.mark.usefixtures("only_the_table")
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_configs_of_published_models(name: str) -> None:
    model_type, fields = PUBLISHED[name]
    check(transformers.CONFIG_MAPPING[model_type](**fields))


@pytest.mark.usefixtures("only_the_table")
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma2", "mixtral", "phi3", "olmo2", "stablelm", "gpt_neox"])
def test_other_dimensions(model_type: str) -> None:
    generator = random.Random(model_type)
    for _ in range(3):
        heads = generator.choice((4, 8, 12))
        fields = {
            "hidden_size": heads * generator.choice((16, 32)), "intermediate_size": generator.choice((96, 160)),
            "num_hidden_layers": generator.choice((2, 5, 7)), "num_attention_heads": heads,
            "num_key_value_heads": generator.choice((1, 2, 4)), "vocab_size": generator.choice((1000, 1003)),
            "tie_word_embeddings": generator.choice((True, False)), "pad_token_id": 0,
        }  # fmt: skip
        check(transformers.CONFIG_MAPPING[model_type](**fields))


@pytest.mark.usefixtures("only_the_table")
@pytest.mark.parametrize(
    ("model_type", "auto"),
    [("bart", "AutoModelForSeq2SeqLM"), ("whisper", "AutoModelForSpeechSeq2Seq"), ("pegasus", "AutoModelForSeq2SeqLM")],
)
def test_an_encoder_decoder_counts_its_encoder_unless_the_config_names_the_decoder(model_type: str, auto: str) -> None:
    config = transformers.CONFIG_MAPPING[model_type]()
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config)
        decoder = transformers.AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[model_type]())
    model.tie_weights()
    truth = sum(parameter.numel() for parameter in model.parameters())
    written = config.to_dict() | {"architectures": None}
    given = {name: written[name] for name in ("encoder_layers", "decoder_layers", "d_model")}
    whole_class = type(model).__name__
    base_class = whole_class.partition("For")[0] + "Model"
    named = [written | {"architectures": [name]} for name in (whole_class, base_class)]
    for whole in (*named, written, {"model_type": model_type} | given):
        assert shape_from_config(whole).parameters == pytest.approx(truth, rel=TOLERANCE)
    assert "encoder and decoder" in shape_from_config(written).assumed
    alone = sum(parameter.numel() for parameter in decoder.parameters())
    for part in ({"architectures": [type(decoder).__name__]}, {"is_encoder_decoder": False}):
        assert shape_from_config(written | part).parameters == pytest.approx(alone, rel=TOLERANCE)


def test_a_type_that_the_table_lacks_is_counted_on_meta_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.CONFIG_MAPPING["recurrent_gemma"](num_hidden_layers=4)
    assert "recurrent_gemma" not in architecture_table()["types"]
    check(config)
    monkeypatch.setattr(model_configs, "count_on_meta", lambda _config: None)
    with pytest.raises(PlanError, match="install transformers"):
        shape_from_config(config.to_dict())
    with pytest.raises(PlanError, match="unknown"):
        shape_from_config({"model_type": "no-such-model"})
    assert counted_model.count_on_meta({"model_type": "no-such-model"}) is None


def test_a_structure_that_the_formulas_do_not_cover_is_counted_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPT-350M projects its embeddings to the width of its layers; the other sizes do not."""
    fields = {"hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    config = transformers.CONFIG_MAPPING["opt"](word_embed_proj_dim=512, **fields)
    check(config)
    monkeypatch.setattr(model_configs, "count_on_meta", lambda _config: None)
    with pytest.raises(PlanError, match="not with these widths"):
        shape_from_config(config.to_dict())


#: Only fields that older published configs have: newer ones are left to follow from them. Small, of the same structure.
OLDER: dict[str, tuple[str, dict[str, Any]]] = {
    "T0_3B": ("t5", {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32,
                     "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "vocab_size": 32128}),
    "T5-3B": ("t5", {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32}),
    "LongT5": ("longt5", {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12,
                          "feed_forward_proj": "gated-gelu"}),
    "BLOOM": ("bloom", {"n_embed": 1024, "n_layer": 24, "num_attention_heads": 16, "vocab_size": 250880}),
    "Mamba": ("mamba", {"hidden_size": 2560, "num_hidden_layers": 4, "vocab_size": 50280}),
    "Qwen3-Next": ("qwen3_next", {"hidden_size": 2048, "num_hidden_layers": 12, "full_attention_interval": 4,
                                  "num_attention_heads": 16, "num_key_value_heads": 2, "num_experts": 16}),
    "DeepSeek-V3.2": ("deepseek_v32", {"hidden_size": 2048, "num_hidden_layers": 9, "first_k_dense_replace": 3,
                                       "n_routed_experts": 16, "moe_intermediate_size": 512,
                                       "num_attention_heads": 16, "num_key_value_heads": 16}),
    "Falcon-7B": ("falcon", {"hidden_size": 4544, "n_layer": 4, "n_head": 71, "multi_query": True,
                             "parallel_attn": True, "bias": False, "vocab_size": 65024}),
}  # fmt: skip

#: Of which the formulas do not cover which layers have which parameters.
KINDS_OF_LAYERS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_hidden_layers": 8, "decoder_sparse_step": 2, "num_experts": 8},
    "qwen2_moe": {"num_hidden_layers": 8, "mlp_only_layers": [0, 1], "num_experts": 8},
    "llama4_text": {"num_hidden_layers": 4, "interleave_moe_layer_step": 2, "num_local_experts": 4},
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "nemotron_h": {"hybrid_override_pattern": "M-M*", "num_hidden_layers": 4},
}


@pytest.mark.usefixtures("only_the_table")
@pytest.mark.parametrize("name", sorted(OLDER))
def test_configs_with_the_fields_of_older_versions(name: str) -> None:
    model_type, fields = OLDER[name]
    truth = built(transformers.CONFIG_MAPPING[model_type](**fields))
    assert shape_from_config({"model_type": model_type, **fields}).parameters == pytest.approx(truth, rel=TOLERANCE)


@pytest.mark.parametrize("model_type", sorted(KINDS_OF_LAYERS))
def test_kinds_of_layers_that_no_formula_covers(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": model_type, **KINDS_OF_LAYERS[model_type]}
    truth = built(transformers.CONFIG_MAPPING[model_type](**KINDS_OF_LAYERS[model_type]))
    assert shape_from_config(config).parameters == pytest.approx(truth, rel=TOLERANCE)
    monkeypatch.setattr(model_configs, "count_on_meta", lambda _config: None)
    with pytest.raises(PlanError, match="install transformers"):
        shape_from_config(config)


def test_the_exceptions_are_listed_with_reasons() -> None:
    table = architecture_table()
    assert len(table["types"]) > 150
    assert all(table["exceptions"].values())
    assert not table["types"].keys() & table["exceptions"].keys()


def test_active_parameters_of_experts() -> None:
    """Qwen3-30B-A3B: 3.3 of 30.5 billion are used by a token (https://huggingface.co/Qwen/Qwen3-30B-A3B)."""
    model_type, fields = PUBLISHED["Qwen3-30B-A3B"]
    shape = shape_from_config({"model_type": model_type, "num_experts_per_tok": 8, **fields})
    assert shape.parameters == pytest.approx(30.5e9, rel=0.01)
    assert shape.used_parameters == pytest.approx(3.3e9, rel=0.03)
    assert (shape.experts, shape.experts_used, shape.ffn) == (128, 8, 768)


def test_expressions() -> None:
    terms = [(2.0, {"a": 1, "b": 1}), (1.0, {"c": 1, "a": -1}), (-3.0, {})]
    assert format_terms(terms) == "2*a*b + c/a + -3"
    assert evaluate(format_terms(terms), {"a": 2, "b": 5, "c": 8}) == 2 * 2 * 5 + 4 - 3
    assert evaluate("c/a", {"a": 0, "c": 1}) != evaluate("c/a", {"a": 0, "c": 1})  # NaN


def test_missing_numbers_follow_from_others_where_the_default_does() -> None:
    entry = architecture_table()["types"]["llama"]
    given = {"hidden_size": 8192, "num_attention_heads": 32, "num_hidden_layers": 4}
    fields = with_defaults(entry, given)
    assert (fields["head_dim"], fields["num_key_value_heads"]) == (256, 32)
    assert with_defaults(entry, given | {"head_dim": 64})["head_dim"] == 64


#: config.json as its model page, or a copy that names it, shows it.
MODEL_PAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-llama/Llama-3.1-70B": (
        "https://huggingface.co/second-state/functionary-medium-v3.1-GGUF/blame/main/config.json",
        {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
         "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
         "tie_word_embeddings": False},
    ),
    "Qwen/Qwen2.5-7B": (
        "https://huggingface.co/osllmai-community/Qwen2.5-7B-Instruct/blob/main/config.json",
        {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
         "tie_word_embeddings": False},
    ),
    "Qwen/Qwen3-235B-A22B": (
        "https://gitcode.com/Ascend/MindSpeed-RL/blob/master/configs/model/qwen3_235b_a22b.yaml",
        {"model_type": "qwen3_moe", "hidden_size": 4096, "intermediate_size": 12288,
         "moe_intermediate_size": 1536, "num_hidden_layers": 94, "num_attention_heads": 64,
         "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
         "vocab_size": 151936, "tie_word_embeddings": False, "decoder_sparse_step": 1,
         "mlp_only_layers": []},
    ),
    "mistralai/Mixtral-8x22B-v0.1": (
        "https://huggingface.co/mistral-community/Mixtral-8x22B-v0.1/blob/refs%2Fpr%2F19/config.json",
        {"model_type": "mixtral", "hidden_size": 6144, "intermediate_size": 16384, "num_hidden_layers": 56,
         "num_attention_heads": 48, "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8,
         "num_experts_per_tok": 2, "tie_word_embeddings": False},
    ),
    "deepseek-ai/DeepSeek-V3": (
        "https://huggingface.co/XelotX/DeepSeek-V3-Base-Original/blob/main/inference/configs/config_671B.json",
        {"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432,
         "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128,
         "num_key_value_heads": 128, "n_routed_experts": 256, "n_shared_experts": 1,
         "first_k_dense_replace": 3, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
         "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 129280, "tie_word_embeddings": False},
    ),
    "microsoft/phi-4": (
        "https://huggingface.co/microsoft/phi-4/blob/refs%2Fpr%2F10/config.json",
        {"model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40,
         "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352,
         "tie_word_embeddings": False},
    ),
    "allenai/OLMo-2-1124-13B": (
        "https://huggingface.co/allenai/OLMo-2-1124-13B/blob/main/config.json",
        {"model_type": "olmo2", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
         "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 100352,
         "tie_word_embeddings": False},
    ),
    "HuggingFaceTB/SmolLM2-1.7B": (
        "https://huggingface.co/Sakalti/hamachi-1.7B/blame/972a93fc596dbfa98d47a2455616799de1beecc8/config.json",
        {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
         "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 49152,
         "tie_word_embeddings": True},
    ),
    "01-ai/Yi-34B": (
        "https://huggingface.co/Locutusque/Hyperion-3.0-Yi-34B/blame/c0bd2b3d298c55914e2a1e72e04daee9b3f144af/config.json",
        {"model_type": "llama", "hidden_size": 7168, "intermediate_size": 20480, "num_hidden_layers": 60,
         "num_attention_heads": 56, "num_key_value_heads": 8, "vocab_size": 64000,
         "tie_word_embeddings": False},
    ),
    "CohereForAI/c4ai-command-r-v01": (
        "https://huggingface.co/TechxGenus/c4ai-command-r-v01-AWQ/blob/main/config.json",
        {"model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
         "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 256000},
    ),
    "openai/gpt-oss-120b": (
        "https://huggingface.co/witflag/AlphaMind/blob/main/original/config.json",
        {"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
         "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 128,
         "num_experts_per_tok": 4, "vocab_size": 201088, "tie_word_embeddings": False},
    ),
    "THUDM/glm-4-9b": (
        "https://huggingface.co/THUDM/glm-4-9b-chat/blame/731ca7fd937cff9f2ae5f01de85a0c8bf21df6fa/config.json",
        {"model_type": "glm", "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
         "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 151552,
         "tie_word_embeddings": False, "attention_bias": True},
    ),
    "bigcode/starcoder2-15b": (
        "https://huggingface.co/bigcode/starcoder2-15b/blame/refs%2Fpr%2F7/config.json",
        {"model_type": "starcoder2", "hidden_size": 6144, "intermediate_size": 24576,
         "num_hidden_layers": 40, "num_attention_heads": 48, "num_key_value_heads": 4, "vocab_size": 49152,
         "tie_word_embeddings": False, "use_bias": True},
    ),
}  # fmt: skip

#: Billions of parameters that the models' authors state, with the last digit that they give.
STATED: dict[str, tuple[str, float, float]] = {
    "Qwen/Qwen2.5-7B": ("https://huggingface.co/Qwen/Qwen2.5-7B", 7.61, 0.01),
    "Qwen/Qwen3-235B-A22B": ("https://huggingface.co/Qwen/Qwen3-235B-A22B", 235, 1),
    "deepseek-ai/DeepSeek-V3": ("https://github.com/deepseek-ai/DeepSeek-V3", 671, 1),
    "openai/gpt-oss-120b": ("https://arxiv.org/abs/2508.10925, table 1", 116.83, 0.01),
}


@pytest.mark.usefixtures("only_the_table")
@pytest.mark.parametrize("name", MODEL_PAGES)
def test_configs_of_model_pages(name: str) -> None:
    source, fields = MODEL_PAGES[name]
    assert source.startswith("https://")
    parameters = shape_from_config(fields, 2048).parameters
    config = transformers.CONFIG_MAPPING[fields["model_type"]]
    truth = built(config(**{key: value for key, value in fields.items() if key != "model_type"}))
    assert parameters == pytest.approx(truth, rel=TOLERANCE)
    if name in STATED:
        _, billions, digit = STATED[name]
        assert abs(parameters / 1e9 - billions) <= digit
