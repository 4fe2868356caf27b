"""Write ``spiece.model`` of a T5 from its ``tokenizer.json``: llama.cpp's converter reads it, and transformers 5 saves none."""

import base64
import json
from pathlib import Path
from typing import Any

from llmft.utils.errors import UserError


def write(tokenizer_file: Path, file: Path) -> None:
    """Write a SentencePiece model with the pieces, scores and normalization of a Unigram tokenizer.

    Args:
        tokenizer_file: ``tokenizer.json``.
        file: The SentencePiece model.

    Raises:
        UserError: The tokenizer is no Unigram model.
    """
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    parts: dict[str, Any] = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    kind = parts["model"]["type"]
    if kind != "Unigram":
        raise UserError(
            f"form=gguf: llama.cpp runs a T5 with a SentencePiece Unigram tokenizer, and this one is {kind}"
        )
    Model: Any = protobuf.ModelProto  # pyright: ignore[reportAttributeAccessIssue]  # generated
    model, piece = Model(), Model.SentencePiece
    added = {token["id"]: token for token in parts["added_tokens"]}
    pieces = {i: (text, score) for i, (text, score) in enumerate(parts["model"]["vocab"])}
    pieces |= {i: (token["content"], 0.0) for i, token in added.items()}
    for i in range(max(pieces) + 1):
        text, score = pieces.get(i, (f"[UNUSED{i}]", 0.0))
        type_ = piece.UNUSED if i not in pieces else piece.CONTROL if i in added else piece.NORMAL
        model.pieces.add(piece=text, score=score, type=piece.UNKNOWN if i == parts["model"]["unk_id"] else type_)
    ids = {token["content"]: i for i, token in added.items()}
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size = trainer.UNIGRAM, len(model.pieces)
    trainer.unk_id, trainer.bos_id = parts["model"]["unk_id"], -1
    trainer.eos_id, trainer.pad_id = ids.get("</s>", -1), ids.get("<pad>", -1)
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = True
    if charsmap := _charsmap(parts["normalizer"]):
        model.normalizer_spec.precompiled_charsmap = charsmap
    file.write_bytes(model.SerializeToString())


def _charsmap(normalizer: Any) -> bytes | None:
    """The normalization of SentencePiece (mostly nmt_nfkc) inside a normalizer of tokenizers."""
    if not normalizer:
        return None
    if normalizer["type"] == "Precompiled":
        return base64.b64decode(normalizer["precompiled_charsmap"] or "")
    return next(filter(None, map(_charsmap, normalizer.get("normalizers", ()))), None)
