"""New tokens: their rows in the embeddings and the LM head, which are trained and saved with the model."""

from collections.abc import Sequence
from typing import Any

import torch

from llmft.models.backbone.special_ids import part_configs
from llmft.utils.errors import UserError


@torch.no_grad()
def resize_embeddings(model: Any, tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add embedding rows for new tokens, initialized with the mean of the others; their ids become ``model.new_token_ids``.

    Rows are never removed: FLAN-T5 has 28 more than its tokenizer has tokens.

    Args:
        model: A transformers model.
        tokenizer: With the new tokens.
        tokens: ``model.new_tokens``.

    Raises:
        UserError: Encoder and decoder have embeddings of their own (T5Gemma), of which transformers resizes one.
    """
    if len(part_configs(model.config)) > 1:
        raise UserError(
            "model.new_tokens: encoder and decoder of this model have embeddings of their own, and transformers resizes one of "
            "them; use tokens that the tokenizer has"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            matrix[rows:] = matrix[:rows].mean(dim=0)
    model.new_token_ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]


def trained_rows(model: Any) -> dict[str, list[int]] | None:
    """The rows of new tokens that are trained next to LoRA matrices, by the name of their layer; None without new tokens.

    Raises:
        UserError: The head is untied although the model's config says that it is tied (FLAN-T5), so that peft would tie it.
    """
    ids = getattr(model, "new_token_ids", None)
    if not ids:
        return None
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(part): name.rpartition(".")[2] for name, part in reversed(list(model.named_modules()))}
    if head.weight is embedding.weight:
        return {names[id(embedding)]: ids}
    if getattr(model.config, "tie_word_embeddings", False):
        raise UserError(
            "model.new_tokens: the head of this model is not tied to its embedding, although its config says so, and peft "
            "would tie it; use peft=none"
        )
    return {names[id(embedding)]: ids, names[id(head)]: ids}
