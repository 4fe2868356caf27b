"""Tiny random twins of published architectures, with tokenizers of their own classes where these matter.

A twin has the structure of its model (positions, biases, tying, language codes), two layers, and weights large enough that a
leak between examples shows above rounding.
"""

import io
import json
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmft.models.backbone.tiny import LLAMA_TEMPLATE, byte_tokenizer

CHARACTERS = [c for c in string.printable if c.strip()]
SIZE = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 700, "init_std": 0.1,
    "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
}  # fmt: skip
T5_SIZE = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
GEMMA_SIZE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "query_pre_attn_scalar": 8, "max_position_embeddings": 4096, "initializer_range": 0.1, "sliding_window": 32,
}  # fmt: skip


class Twin(NamedTuple):
    """A twin.

    Attributes:
        config: Its config, given the tokenizer.
        tokenizer: Its tokenizer, given a folder for files.
        start: The token that its decoder starts with; empty for a causal model.
        forced: The token that its labels begin with, and that generation forces.
        targets: Its LoRA targets.
        languages: Source and target.
        packs: Whether it can be packed.
        untied: Whether its file has a head of its own (FLAN-T5, mT5), which transformers keeps although T5's config ties it.
    """

    config: Callable[[Any], Any]
    tokenizer: Callable[[Path], Any]
    start: str = ""
    forced: str | None = None
    targets: str = "q_proj,v_proj"
    languages: tuple[str, str] | None = None
    packs: bool = True
    untied: bool = False

    def overrides(self, folder: Path) -> list[str]:
        """The command line that trains it."""
        codes = zip(("source_language", "target_language"), self.languages or (), strict=False)
        chosen = [f"model.path={folder}", f"model.lora_targets=[{self.targets}]"]
        return [
            f"model={'tiny_t5' if self.start else 'tiny_llama'}",
            *chosen,
            *(f"model.{key}={code}" for key, code in codes),
            "prompt=source" if self.start else "prompt=plain",
        ]


def build(name: str, folder: Path) -> list[str]:
    """Write a twin into a folder, once; returns the overrides that train it."""
    twin = SEQ2SEQ.get(name) or CAUSAL[name]
    if not (folder / "config.json").is_file():
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        auto_class = AutoModelForSeq2SeqLM if name in SEQ2SEQ else AutoModelForCausalLM
        folder.mkdir(parents=True)
        tokenizer = twin.tokenizer(folder)
        with torch.random.fork_rng(devices=[]):  # made on the CPU
            torch.default_generator.manual_seed(7)
            model = auto_class.from_config(twin.config(tokenizer), dtype=torch.float32)
            if hasattr(model, "final_logits_bias"):
                model.final_logits_bias.normal_(std=0.3)
            if twin.untied:
                model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) / 8)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return twin.overrides(folder)


def _bart(kind: str, **options: Any) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        import transformers

        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        ids |= {"bos_token_id": tokenizer.bos_token_id, "decoder_start_token_id": tokenizer.eos_token_id}
        return getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **{**SIZE, **ids, **options})

    return config


def _starts_with_pad(kind: str, **options: Any) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        return _bart(kind, decoder_start_token_id=tokenizer.pad_token_id, **options)(tokenizer)

    return config


def _t5(kind: str, **options: Any) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        import transformers

        return getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **T5_SIZE, **options)

    return config


def _t5gemma(tokenizer: Any) -> Any:
    from transformers import T5GemmaConfig

    ids: Any = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    parts = {part: {**GEMMA_SIZE, **ids} for part in ("encoder", "decoder")}
    return T5GemmaConfig(**parts, **ids)


def _bytes(_: Path) -> Any:
    return byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, ends_with_eos=True)


def _roberta(_: Path) -> Any:
    """As BART's: ``<s> X </s>``."""
    from tokenizers import processors

    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(roles)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _gemma(_: Path) -> Any:
    """As Gemma's: ``<bos> X``."""
    from tokenizers import processors

    roles = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(roles)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


@cache
def _sentencepiece() -> tuple[bytes, list[str]]:
    """A model with a piece per printable character, and its pieces."""
    import sentencepiece

    out = io.BytesIO()
    text = ["".join(CHARACTERS), *(f"{c} {c}" for c in CHARACTERS)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=out, model_type="char", character_coverage=1.0,
        vocab_size=len(CHARACTERS) + 4, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    return out.getvalue(), [piece for piece in pieces if piece not in ("<s>", "</s>", "<unk>")]


def _vocabulary(*first: str, last: tuple[str, ...] = ()) -> dict[str, int]:
    return {token: i for i, token in enumerate([*first, *_sentencepiece()[1], *last])}


def _nllb(_: Path) -> Any:
    from transformers import NllbTokenizer

    return NllbTokenizer(
        vocab=_vocabulary("<s>", "<pad>", "</s>", "<unk>"), merges=[], extra_special_tokens=["eng_Latn", "fra_Latn"]
    )


def _mbart(_: Path) -> Any:
    from transformers import MBartTokenizer

    pieces = _vocabulary("<s>", "<pad>", "</s>", "<unk>")
    return MBartTokenizer(vocab=[(token, -float(i)) for token, i in pieces.items()])


def _mbart50(_: Path) -> Any:
    from transformers import MBart50Tokenizer

    pieces = _vocabulary("<unk>", "<s>", "</s>")
    return MBart50Tokenizer(vocab=[(token, -float(i)) for token, i in pieces.items()])


def _files(folder: Path, vocabulary: dict[str, int]) -> tuple[str, str]:
    (folder / "pieces.model").write_bytes(_sentencepiece()[0])
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    return str(folder / "pieces.model"), str(folder / "vocabulary.json")


def _m2m100(folder: Path) -> Any:
    from transformers import M2M100Tokenizer
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    model, vocabulary = _files(folder, _vocabulary("<s>", "<pad>", "</s>", "<unk>"))
    codes = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    return M2M100Tokenizer(vocabulary, model, additional_special_tokens=codes)


def _marian(folder: Path) -> Any:
    from transformers import MarianTokenizer

    model, vocabulary = _files(folder, _vocabulary("</s>", "<unk>", last=(">>fra<<", ">>deu<<", "<pad>")))
    return MarianTokenizer(model, model, vocabulary)


def _t5_pieces(_: Path) -> Any:
    """As T5's: a Unigram model."""
    from transformers import T5Tokenizer

    words = [f"▁{word}" for word in ("the", "What", "is", "question", "Answer", "Question:", "Instruction:", "er", "s")]
    pieces = ["<pad>", "</s>", "<unk>", *_sentencepiece()[1], *words]
    return T5Tokenizer(
        vocab=[(piece, -float(i % 17) / 2) for i, piece in enumerate(dict.fromkeys(pieces))], extra_ids=3
    )


def _byt5(_: Path) -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer(extra_ids=2)


T5: Any = {"start": "<pad>", "targets": "q,v"}
SEQ2SEQ = {
    "bart": Twin(_bart("Bart", scale_embedding=True), _roberta, "</s>", "<s>"),
    "pegasus": Twin(_starts_with_pad("Pegasus", scale_embedding=True), _bytes, "<pad>"),
    "marian": Twin(_starts_with_pad("Marian", scale_embedding=True), _marian, "<pad>"),
    "nllb": Twin(_bart("M2M100", scale_embedding=True), _nllb, "</s>", "fra_Latn", languages=("eng_Latn", "fra_Latn")),
    "m2m100": Twin(_bart("M2M100", scale_embedding=True), _m2m100, "</s>", "__fr__", languages=("en", "fr")),
    "mbart": Twin(_bart("MBart", decoder_start_token_id=None), _mbart, "ro_RO", languages=("en_XX", "ro_RO")),
    "mbart50": Twin(_bart("MBart"), _mbart50, "</s>", "ro_RO", languages=("en_XX", "ro_RO")),
    "blenderbot_small": Twin(_bart("BlenderbotSmall"), _roberta, "</s>", "<s>"),
    "t5_untied": Twin(_t5("T5", feed_forward_proj="gated-gelu", tie_word_embeddings=False), _bytes, **T5, untied=True),
    "t5_pieces": Twin(
        _t5("T5", feed_forward_proj="gated-gelu", tie_word_embeddings=False), _t5_pieces, **T5, untied=True
    ),
    "mt5": Twin(_t5("MT5"), _bytes, **T5, untied=True),
    "umt5": Twin(_t5("UMT5"), _bytes, **T5),
    "byt5": Twin(_t5("T5", feed_forward_proj="gated-gelu", tie_word_embeddings=False), _byt5, **T5),
    "longt5": Twin(_t5("LongT5", local_radius=15), _bytes, **T5, packs=False),
    "longt5_global": Twin(
        _t5("LongT5", local_radius=15, encoder_attention_type="transient-global", global_block_size=4),
        _bytes,
        **T5,
        packs=False,
    ),
    "t5gemma": Twin(_t5gemma, _gemma, "<bos>", packs=False),
}


def _causal(kind: str, **options: Any) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        import transformers

        size = {
            name: value for name, value in GEMMA_SIZE.items() if name not in ("query_pre_attn_scalar", "sliding_window")
        }
        ids = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        return getattr(transformers, f"{kind}Config")(**{**size, **ids, **options})

    return config


def _llama(_: Path) -> Any:
    tokenizer = byte_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})
    tokenizer.chat_template = LLAMA_TEMPLATE
    return tokenizer


ATTENTION = "q_proj,k_proj,v_proj,o_proj"
GRANITE = {
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.1,
}
CAUSAL = {
    "qwen2": Twin(_causal("Qwen2"), _llama, targets=ATTENTION),
    "qwen3": Twin(_causal("Qwen3", tie_word_embeddings=True), _llama, targets=ATTENTION),
    "smollm3": Twin(_causal("SmolLM3", no_rope_layer_interval=2), _llama, targets=ATTENTION),
    "phi3": Twin(_causal("Phi3", partial_rotary_factor=0.5), _llama, targets="qkv_proj,o_proj"),
    "mistral": Twin(_causal("Mistral", sliding_window=None), _llama, targets=ATTENTION),
    "olmo2": Twin(_causal("Olmo2"), _llama, targets=ATTENTION),
    "granite": Twin(_causal("Granite", tie_word_embeddings=True, **GRANITE), _llama, targets=ATTENTION),
    "gemma2": Twin(_causal("Gemma2", query_pre_attn_scalar=8, sliding_window=32), _llama, targets=ATTENTION),
    "gpt_oss": Twin(
        _causal("GptOss", num_local_experts=4, num_experts_per_tok=2, sliding_window=1024),
        _llama,
        targets=ATTENTION,
        packs=False,
    ),
}
