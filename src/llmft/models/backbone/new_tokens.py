"""New tokens -> rows of a model's embeddings and head, which must be trained and saved with it."""

from collections.abc import Sequence
from typing import Any

import torch

from llmft.utils.errors import UserError


@torch.no_grad()
def grow(model: Any, tokenizer: Any, tokens: Sequence[str]) -> None:
    """Give new tokens rows, and remember which; each row begins as the mean of those that were there.

    Rows are added where there are too few, and never taken away: FLAN-T5 has 28 more than its tokenizer has tokens.

    Args:
        model: A transformers model.
        tokenizer: With the new tokens.
        tokens: ``model.new_tokens``.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            matrix[rows:] = matrix[:rows].mean(dim=0)
    model.new_token_ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]


def trained_rows(model: Any) -> dict[str, list[int]] | None:
    """The rows that are trained beside LoRA matrices, by the name of their layer; None where there are no new tokens.

    Raises:
        UserError: The head has weights of its own that the model's config denies (FLAN-T5), so that peft would tie them.
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
            "model.new_tokens: this model's head is not its embedding, although its config says so, and peft would make it so; "
            "use peft=none"
        )
    return {names[id(embedding)]: ids, names[id(head)]: ids}
