"""Tokenizer, chat template and stop tokens of an exported folder, for runtimes that have no tokenizer of their own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.data.records import Turn
from llmft.utils.errors import UserError
from llmft.utils.text import one_line


class FolderTokenizer:
    """The Hugging Face tokenizer of an exported folder, and the special ids of its generation config.

    Args:
        folder: With tokenizer files, chat template and ``generation_config.json``.

    Attributes:
        tokenizer: The tokenizer.
        stop_ids: Ids that end an answer.
        forced: First ids of every answer of an encoder-decoder (``forced_bos_token_id``), at most one.

    Raises:
        UserError: transformers cannot load the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: its tokenizer cannot be loaded ({one_line(error)})") from error
        ends = generation.get("eos_token_id")
        self.stop_ids = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
        forced = generation.get("forced_bos_token_id")
        self.forced: list[int] = [] if forced is None else [forced]

    def prompt_ids(self, turns: Sequence[Turn], tools: Sequence[str] = ()) -> list[int]:
        """The ids of the chat template's generation prompt."""
        messages = [turn.message() for turn in turns]
        schemas: Any = [json.loads(tool) for tool in tools] or None
        found: Any = self.tokenizer.apply_chat_template(messages, tools=schemas, add_generation_prompt=True)
        return list(found["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
