"""Texts -> ids, and back: a tokenizer with the control tokens of a template, which are single ids there and text elsewhere."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmft.data.records import Example
from llmft.data.tokenization.template import Prompt, PromptTemplate


@dataclass
class PromptTokenizer(ABC):
    """Tokenizer and prompt template of a backbone, joined.

    Attributes:
        tokenizer: A Hugging Face tokenizer.
        template: The prompt template; its control tokens become single ids, those in users' text stay text.
        stop_id: The id that ends every trained answer.
    """

    tokenizer: Any
    template: PromptTemplate
    stop_id: int = field(init=False)
    ahead: dict[tuple[str, bool], list[int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        stop = self.template.frame[1]
        self.stop_id = self.tokenizer.convert_tokens_to_ids(stop) if stop else self.tokenizer.eos_token_id

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The ids that generation starts from, and that every training row of this prompt starts with."""
        if not any(map(self._names_control, prompt.pieces[::2])):
            return self._text_ids(prompt.text, split_controls=False)
        ids: list[int] = []
        for number, piece in enumerate(prompt.pieces):
            if number % 2:
                ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self._text_ids(piece, split_controls=True)
        return ids

    def look_ahead(self, rows: Sequence[tuple[Prompt, str]]) -> None:
        """Tokenise the texts of many rows in one call, so that ``encode`` finds them done; ``forget`` frees them."""
        for split_controls in (False, True):
            texts = {
                text for prompt, answer in rows for text, split in self.texts(prompt, answer) if split == split_controls
            }
            texts = [text for text in texts if not (split_controls and self._names_control(text))]
            if texts:
                found = self._tokenized(texts, split_controls=split_controls)
                self.ahead.update(((text, split_controls), ids) for text, ids in zip(texts, found, strict=True))

    def forget(self) -> None:
        """Drop what ``look_ahead`` has made."""
        self.ahead.clear()

    @abstractmethod
    def texts(self, prompt: Prompt, answer: str) -> list[tuple[str, bool]]:
        """What ``encode`` will tokenise, and whether control tokens in it are split."""

    def decode(self, ids: list[int]) -> str:
        """Generated ids as text: no special tokens, nothing tidied, no lead of the template."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.removeprefix(self.template.frame[0])

    @cached_property
    def missing_bytes(self) -> bytes | None:
        """The bytes that a byte-level tokenizer does not know; None of one that may lose anything."""
        return missing_bytes(self.tokenizer)

    def lost_characters(self, text: str, ids: list[int]) -> str:
        """The characters of ``text`` that do not come back from its ids (T5 loses newlines, braces, ...), sorted."""
        if self.missing_bytes is not None:  # all other bytes come back
            raw = text.encode()
            if len(raw.translate(None, self.missing_bytes)) == len(raw):
                return ""
        back = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return "".join(sorted((Counter(text) - Counter(back)).elements()))

    def names_control(self, example: Example) -> bool:
        """Whether a text of an example holds a control token."""
        texts = (text for turn in example.context for text in (turn.content, turn.input))
        return self._names_control(example.answer) or any(map(self._names_control, texts))

    def _names_control(self, text: str) -> bool:
        for start in self._control_starts:  # most texts have none, and a plain loop finds that out soonest
            if start in text:
                return any(control in text for control in self.template.controls)
        return False

    @cached_property
    def _control_starts(self) -> set[str]:
        return {control[0] for control in self.template.controls}

    def _text_ids(self, text: str, *, split_controls: bool) -> list[int]:
        if (text, split_controls) in self.ahead:
            return list(self.ahead[text, split_controls])
        if not split_controls or not self._names_control(text):
            return self._tokenized([text], split_controls=split_controls)[0]
        # a Unigram model (T5's, say) has its control tokens among its pieces, and finds them in plain text
        found = self.tokenizer(text, **_options(split_controls), return_offsets_mapping=True)
        pieces = zip(found["input_ids"], found["offset_mapping"], strict=True)
        return [part for token, (start, end) in pieces for part in self._as_text(token, text[start:end])]

    def _tokenized(self, texts: list[str], *, split_controls: bool) -> list[list[int]]:
        """The ids that calling the tokenizer gives, without the work for what is not asked (offsets, masks)."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not getattr(self.tokenizer, "is_fast", False) or backend is None or backend.truncation or backend.padding:
            return self.tokenizer(texts, **_options(split_controls), return_attention_mask=False)["input_ids"]
        before, backend.encode_special_tokens = backend.encode_special_tokens, split_controls
        found = backend.encode_batch_fast(texts, add_special_tokens=False)
        backend.encode_special_tokens = before
        return [encoding.ids for encoding in found]

    def _as_text(self, token: int, written: str) -> list[int]:
        """The id of a piece; a control token that was written out in text is given letter by letter."""
        written = written.strip()
        if written in self.template.controls and self.tokenizer.convert_tokens_to_ids(written) == token:
            return self.tokenizer.convert_tokens_to_ids(list(written))
        return [token]


def _options(split_controls: bool) -> dict[str, bool]:
    return {"add_special_tokens": False, "split_special_tokens": split_controls}


def missing_bytes(tokenizer: Any) -> bytes | None:
    """The bytes that have no token in a byte-level BPE tokenizer around which nothing adds, drops or changes characters.

    Returns:
        None where the tokenizer is of another kind, so that a text may not come back from its ids.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    cutter = parts["pre_tokenizer"] or {"type": None}
    *cutters, last = cutter.get("pretokenizers") or [cutter]
    model = parts["model"]
    keeps = (
        parts["normalizer"] is None
        and all(c["type"] == "Digits" or (c["type"] == "Split" and c["behavior"] != "Removed") for c in cutters)
        and (last["type"], last.get("add_prefix_space")) == ("ByteLevel", False)
        and (parts["decoder"] or {}).get("type") == "ByteLevel"
        and model["type"] == "BPE"
        and not any(
            model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "unk_token")
        )
        and not any(token["lstrip"] or token["rstrip"] for token in parts["added_tokens"])
    )
    # ByteLevel writes printable Latin-1 as itself and the other bytes, in order, as the characters from U+0100 on
    return bytes(byte for byte in range(256) if _byte_token(byte) not in model["vocab"]) if keeps else None


def _byte_token(byte: int) -> str:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in printable else chr(0x100 + sum(other not in printable for other in range(byte)))
