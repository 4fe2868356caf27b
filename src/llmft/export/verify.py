"""The exported folder, loaded as others load it, against the model that was trained: logits and prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.models.backbone import quantization
from llmft.utils.errors import UserError

POSITIONS = 32  # of each probe; enough to pass every weight, and small where the vocabulary is large


class ReferenceLogits(NamedTuple):
    """A question, its prompt's ids, and the logits [T, V] that the trained model gives there."""

    context: Sequence[Turn]
    ids: list[int]
    logits: torch.Tensor


def probes(model: Any, codec: Codec, contexts: Sequence[Sequence[Turn]]) -> list[ReferenceLogits]:
    """Ask the trained model, before its weights are merged."""
    found = []
    for context in contexts:
        ids = codec.prompt_ids(codec.template.render(context))
        found.append(ReferenceLogits(context, ids, logits(model, ids)))
    return found


@torch.inference_mode()
def logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Logits [T, V] in float32: at the prompt's last positions (causal), or of a decoder that is given its first ids."""
    prompt = torch.tensor([ids], device=model.device)
    if model.config.is_encoder_decoder:
        start = torch.full((1, 1), model.config.decoder_start_token_id, device=model.device)
        out = model(input_ids=prompt, decoder_input_ids=torch.cat([start, prompt[:, : POSITIONS - 1]], dim=1))
    else:
        out = model(input_ids=prompt)
    return out.logits[0, -POSITIONS:].float().cpu()


def largest_difference(
    folder: Path, base: str | None, revision: str | None, auto_class: Any, device: Any, asked: Sequence[ReferenceLogits]
) -> float:
    """Load a folder with plain transformers (and peft) and compare.

    Args:
        folder: What was exported.
        base: Folder or Hub id of the base of an adapter, None for whole weights.
        revision: Of that base on the Hub.
        auto_class: The transformers class of the family.
        device: Where the trained model was asked.
        asked: What it said.

    Returns:
        The largest absolute difference of a logit; NaN where one is not finite.

    Raises:
        UserError: The exported chat template makes other ids than were trained.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for probe in asked:
        messages = [turn.message() for turn in probe.context]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        if ids != probe.ids:
            raise UserError(
                f"export: the chat template gives other ids than were trained for {messages[-1]['content']!r}"
            )
    safely: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    model = auto_class.from_pretrained(
        base or folder, revision=revision if base else None, dtype=torch.float32, **safely
    )
    if base:
        with quantization.deferred_compile():
            from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    model = model.to(device).eval()
    differences = [(logits(model, probe.ids) - probe.logits).abs().max() for probe in asked]
    return float(torch.stack(differences).max())
