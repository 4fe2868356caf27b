"""Tiny randomly initialized models with byte tokenizers, to try and to test llmft without a download."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Zephyr's chat template, as TinyLlama-Chat has it: no BOS, the EOS ends every turn.
LLAMA_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Gemma's chat template: the BOS is in the template, and ``<end_of_turn>`` ends every turn.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user')"
    " + '\n' + message.content + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Five times the usual: with it, a frozen random head still separates tokens (LoRA learns), and leaks between examples of a
# batch show in the logits above rounding.
INITIALIZER_RANGE = 0.1
SIZE = {"hidden": 64, "layers": 2, "heads": 4, "positions": 4096}
INIT_SEED = 20261122
KINDS = ("t5", "gpt2", "llama", "gemma")


def byte_tokenizer(specials: dict[str, str], *, more: Sequence[str] = (), ends_with_eos: bool = False) -> Any:
    """A tokenizer with one id per special token (in order, from 0) and per byte; decoding is lossless.

    Args:
        specials: Tokens by role: ``pad_token``, ``eos_token``, ``bos_token``; two roles may share a token.
        more: Control tokens without a role.
        ends_with_eos: Whether an EOS is appended to raw text, as by T5's tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = list(dict.fromkeys([*specials.values(), *more]))
    vocabulary = {token: i for i, token in enumerate([*tokens, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if ends_with_eos:
        eos = specials["eos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, vocabulary[eos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, extra_special_tokens=list(more), **specials
    )


def build(kind: str, folder: Path) -> None:
    """Write config, weights and tokenizer of a tiny model into a folder.

    Args:
        kind: One of ``KINDS``.
        folder: It is created if it does not exist.

    Raises:
        KeyError: There is no tiny model of this kind.
    """
    import torch

    config, auto_class, tokenizer = {"t5": _t5, "gpt2": _gpt2, "llama": _llama, "gemma": _gemma}[kind]()
    with torch.random.fork_rng(devices=[]):  # the weights are made on the CPU
        torch.default_generator.manual_seed(INIT_SEED)
        auto_class.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _t5() -> tuple[Any, Any, Any]:
    from transformers import AutoModelForSeq2SeqLM, T5Config

    tokenizer = byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, ends_with_eos=True)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=SIZE["hidden"],
        d_kv=SIZE["hidden"] // SIZE["heads"],
        d_ff=4 * SIZE["hidden"],
        num_layers=SIZE["layers"],
        num_heads=SIZE["heads"],
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,  # pyright: ignore[reportCallIssue]
    )
    return config, AutoModelForSeq2SeqLM, tokenizer


def _gpt2() -> tuple[Any, Any, Any]:
    from transformers import AutoModelForCausalLM, GPT2Config

    end = "<|endoftext|>"  # the only special token of GPT-2
    tokenizer = byte_tokenizer({"bos_token": end, "eos_token": end, "unk_token": end})
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=SIZE["positions"],
        n_embd=SIZE["hidden"],
        n_layer=SIZE["layers"],
        n_head=SIZE["heads"],
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=0,
        eos_token_id=0,
    )
    return config, AutoModelForCausalLM, tokenizer


def _llama() -> tuple[Any, Any, Any]:
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = byte_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})
    tokenizer.chat_template = LLAMA_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SIZE["hidden"],
        intermediate_size=3 * SIZE["hidden"],
        num_hidden_layers=SIZE["layers"],
        num_attention_heads=SIZE["heads"],
        num_key_value_heads=SIZE["heads"] // 2,
        max_position_embeddings=SIZE["positions"],
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return config, AutoModelForCausalLM, tokenizer


def _gemma() -> tuple[Any, Any, Any]:
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    roles = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(roles, more=("<start_of_turn>", "<end_of_turn>"))
    tokenizer.chat_template = GEMMA_TEMPLATE
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=SIZE["hidden"],
        intermediate_size=3 * SIZE["hidden"],
        num_hidden_layers=SIZE["layers"],
        num_attention_heads=SIZE["heads"],
        num_key_value_heads=1,
        head_dim=SIZE["hidden"] // SIZE["heads"],
        query_pre_attn_scalar=SIZE["hidden"] // SIZE["heads"],
        max_position_embeddings=SIZE["positions"],
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=INITIALIZER_RANGE,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return config, AutoModelForCausalLM, tokenizer
