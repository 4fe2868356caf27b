"""The vocabulary of a tokenizer against the model's: ids without an embedding, and ids that end a generation."""

from collections.abc import Sequence
from typing import Any

from llmft.utils.errors import UserError


def check_vocabulary(tokenizer: Any, config: Any, new_tokens: Sequence[str]) -> None:
    """Check that every id of a tokenizer has an embedding.

    Args:
        tokenizer: A Hugging Face tokenizer.
        config: The transformers config of the model.
        new_tokens: ``model.new_tokens``, for which embeddings are added.

    Raises:
        UserError: It has more ids than the model has embeddings.
    """
    rows = getattr(config, "vocab_size", None)
    added = [id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.content not in new_tokens]
    ids = max([tokenizer.vocab_size, *(id_ + 1 for id_ in added)])
    if rows is not None and ids > rows:
        raise UserError(
            f"model: its tokenizer has {ids:,} ids, the model has {rows:,} embeddings; they are not of the same model"
            " (look at tokenizer.json and at vocab_size in config.json)"
        )


def ending_ids(path: str, revision: str | None) -> list[int]:
    """The ids that end a generation by a model's own generation config; empty if it has none.

    Args:
        path: Folder or Hub id of the model.
        revision: Of the Hub id.
    """
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(path, revision=revision or "main").eos_token_id
    except (OSError, ValueError):
        return []
    return [found] if isinstance(found, int) else list(found or [])
