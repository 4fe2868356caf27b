"""``TokenizerRuntime``: the base class of runtimes whose prompts are tokenized by a Hugging Face tokenizer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmft.data.records import Turn
from llmft.utils.errors import UserError
from llmft.utils.text import one_line


class TokenizerRuntime:
    """What a ``Runtime`` takes from its tokenizer and its generation config.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        generation: Keys of GenerationConfig.

    Attributes:
        tokenizer: The tokenizer.
        stop_ids: Ids that end an answer (``eos_token_id``).
        forced: First ids of every answer of an encoder-decoder (``forced_bos_token_id``), at most one.
    """

    def __init__(self, tokenizer: Any, generation: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        ends: Any = generation.get("eos_token_id")
        forced: int | None = generation.get("forced_bos_token_id")
        self.stop_ids: frozenset[int] = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
        self.forced: list[int] = [] if forced is None else [forced]

    def prompt_ids(self, turns: Sequence[Turn], tools: Sequence[str] = ()) -> list[int]:
        """The ids of the chat template's generation prompt."""
        messages = [turn.message() for turn in turns]
        schemas = [json.loads(tool) for tool in tools] or None
        found = self.tokenizer.apply_chat_template(messages, tools=schemas, add_generation_prompt=True)
        return list(found["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def load_tokenizer(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The tokenizer of an exported folder, and the keys of its ``generation_config.json``.

    Raises:
        UserError: transformers cannot load the tokenizer, or there is no such file.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return tokenizer, json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: its tokenizer cannot be loaded ({one_line(error)})") from error
