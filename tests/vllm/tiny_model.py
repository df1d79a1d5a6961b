"""Write a tiny random language model, which vLLM can load: a Llama of 4 layers and 3 million parameters.

Usage: tiny_model.py FOLDER, with vLLM's Python. Its tokenizer is trained on the standard library's source.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

VOCABULARY = 2048
CONTEXT_TOKENS = 2048


def main(folder: str) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    classes: Any = transformers  # most of its functions have no types
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))], trainer)
    classes.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=CONTEXT_TOKENS,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = classes.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT_TOKENS, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    classes.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
