"""Verify an export: load it with plain transformers and peft, and compare prompt ids and logits with the trained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.models.backbone import quantization
from llmft.models.backbone.special_ids import decoder_start_id
from llmft.utils.errors import UserError

POSITIONS = 32  # logits compared per prompt; enough to use all weights, and small for large vocabularies


class ReferenceLogits(NamedTuple):
    """A question, its prompt ids, and the trained model's logits, [T, V]."""

    context: Sequence[Turn]
    ids: list[int]
    logits: torch.Tensor


def reference_logits(model: Any, codec: Codec, contexts: Sequence[Sequence[Turn]]) -> list[ReferenceLogits]:
    """Compute the logits of the trained model, before its weights are merged."""
    found = []
    for context in contexts:
        ids = codec.prompt_ids(codec.template.render(context))
        found.append(ReferenceLogits(context, ids, logits(model, ids)))
    return found


@torch.inference_mode()
def logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Logits [T, V] in float32 on the CPU: at the prompt's last positions, or (seq2seq) with its first ids as decoder input."""
    prompt = torch.tensor([ids], device=model.device)
    if model.config.is_encoder_decoder:
        start = torch.full((1, 1), decoder_start_id(model), device=model.device)
        out = model(input_ids=prompt, decoder_input_ids=torch.cat([start, prompt[:, : POSITIONS - 1]], dim=1))
    else:
        out = model(input_ids=prompt)
    return out.logits[0, -POSITIONS:].float().cpu()


def largest_difference(
    folder: Path,
    base: str | None,
    revision: str | None,
    auto_class: Any,
    device: Any,
    references: Sequence[ReferenceLogits],
) -> float:
    """Load an exported folder with plain transformers (and peft), and compare with the trained model.

    Args:
        folder: The exported folder.
        base: Folder or Hub id of an adapter's base model; None for full weights.
        revision: Revision of the base model on the Hub.
        auto_class: The transformers class of the family.
        device: Device of the reference logits' model.
        references: Prompts and logits of the trained model.

    Returns:
        The largest absolute difference of a logit; NaN if one is not finite.

    Raises:
        UserError: The exported chat template gives other prompt ids than in training.
    """
    from transformers import GenerationConfig

    _check_prompt_ids(folder, references)
    safely: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    model = auto_class.from_pretrained(
        base or folder, revision=revision if base else None, dtype=torch.float32, **safely
    )
    if base:
        with quantization.deferred_compile():
            from peft import PeftModel

        # mBART's start token is in no config of the base
        model.generation_config = GenerationConfig.from_pretrained(folder)
        model = PeftModel.from_pretrained(model, folder)
    model = model.to(device).eval()
    differences = [(logits(model, reference.ids) - reference.logits).abs().max() for reference in references]
    return float(torch.stack(differences).max())


def _check_prompt_ids(folder: Path, references: Sequence[ReferenceLogits]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for reference in references:
        messages = [turn.message() for turn in reference.context]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        if ids != reference.ids:
            raise UserError(
                f"export: the chat template gives other ids than in training for {messages[-1]['content']!r}"
            )
