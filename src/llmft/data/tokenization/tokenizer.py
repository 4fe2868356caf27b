"""Tokenize and decode prompts; control tokens are single ids in the template, and text in users' texts."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmft.data.records import Example, Turn
from llmft.data.tokenization.template import Prompt, PromptTemplate


@dataclass
class PromptTokenizer(ABC):
    """The tokenizer and the prompt template of a backbone.

    Attributes:
        tokenizer: A Hugging Face tokenizer.
        template: The prompt template; its control tokens become single ids, those in users' texts stay text.
        stop_id: The stop token, at the end of every trained answer.
        stop_ids: All stop tokens; a turn of tool calls may have one of its own.
    """

    tokenizer: Any
    template: PromptTemplate
    stop_id: int = field(init=False)
    stop_ids: tuple[int, ...] = field(init=False)
    ahead: dict[tuple[str, bool], list[int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        stop = self.template.frame[1]
        self.stop_id = self.tokenizer.convert_tokens_to_ids(stop) if stop else self.tokenizer.eos_token_id
        self.stop_ids = (self.stop_id,)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt: where generation starts, and how every training example with this prompt starts."""
        if not any(map(self._names_control, prompt.pieces[::2])):
            return self._text_ids(prompt.text, split_controls=False)
        ids: list[int] = []
        for number, piece in enumerate(prompt.pieces):
            if number % 2:
                ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self._text_ids(piece, split_controls=True)
        return ids

    def look_ahead(self, rows: Sequence[tuple[Prompt, str | Turn]]) -> None:
        """Tokenize the texts of many examples in one call, ahead of ``encode``; ``forget`` frees them."""
        for split_controls in (False, True):
            texts = {
                text for prompt, answer in rows for text, split in self.texts(prompt, answer) if split == split_controls
            }
            texts = [text for text in texts if not (split_controls and self._names_control(text))]
            if texts:
                found = self._tokenized(texts, split_controls=split_controls)
                self.ahead.update(((text, split_controls), ids) for text, ids in zip(texts, found, strict=True))

    def forget(self) -> None:
        """Free the ids of ``look_ahead``."""
        self.ahead.clear()

    @abstractmethod
    def texts(self, prompt: Prompt, answer: str | Turn) -> list[tuple[str, bool]]:
        """The texts that ``encode`` will tokenize, and whether control tokens in them are split."""

    def decode(self, ids: list[int]) -> str:
        """Decode generated ids, without special tokens, clean-up, or the template's text before the answer."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.removeprefix(self.lead)

    @cached_property
    def lead(self) -> str:
        """What the template writes between a prompt and the text of its answer, as decoded text."""
        return self.template.frame[0]

    @cached_property
    def missing_bytes(self) -> bytes | None:
        """As the function ``missing_bytes``."""
        return missing_bytes(self.tokenizer)

    def lost_characters(self, text: str, ids: list[int], typed: str | None = None) -> str:
        """The characters of ``text`` that decoding its ids does not give back (T5 loses newlines, braces, ...), sorted.

        Args:
            text: Any text.
            ids: Its ids.
            typed: What of it is a user's; characters of the template are not counted. None if all of it is.
        """
        if self.missing_bytes is not None:  # all other bytes are given back
            raw = text.encode()
            if len(raw.translate(None, self.missing_bytes)) == len(raw):
                return ""
        back = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        lost = Counter(text) - Counter(back)
        return "".join(sorted((lost if typed is None else lost & Counter(typed)).elements()))

    def names_control(self, example: Example) -> bool:
        """Whether a text of an example contains a control token."""
        return any(map(self._names_control, example.texts()))

    def _names_control(self, text: str) -> bool:
        for start in self._control_starts:  # most texts have none, and a plain loop is fastest
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
        if not getattr(self.tokenizer, "is_fast", False):  # no offsets
            found = self._tokenized([text], split_controls=True)[0]
            return [part for i in found for part in self._as_text(i, self.tokenizer.convert_ids_to_tokens(i))]
        # a Unigram model (such as T5's) has its control tokens among its pieces, and finds them in plain text
        found = self.tokenizer(text, **_options(split_controls), return_offsets_mapping=True)
        pieces = zip(found["input_ids"], found["offset_mapping"], strict=True)
        return [part for token, (start, end) in pieces for part in self._as_text(token, text[start:end])]

    def _tokenized(self, texts: list[str], *, split_controls: bool) -> list[list[int]]:
        """The same ids as calling the tokenizer, but without computing offsets and masks."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not getattr(self.tokenizer, "is_fast", False) or backend is None or backend.truncation or backend.padding:
            return self.tokenizer(texts, **_options(split_controls), return_attention_mask=False)["input_ids"]
        before, backend.encode_special_tokens = backend.encode_special_tokens, split_controls
        found = backend.encode_batch_fast(texts, add_special_tokens=False)
        backend.encode_special_tokens = before
        return [encoding.ids for encoding in found]

    def _as_text(self, token: int, written: str) -> list[int]:
        """The id of a piece; a control token in a text becomes one id per letter."""
        written = written.strip()
        if written in self.template.controls and self.tokenizer.convert_tokens_to_ids(written) == token:
            letters = self.tokenizer.convert_tokens_to_ids(list(written))
            if None not in letters:
                return letters
            return [id_ for letter in self._tokenized(list(written), split_controls=True) for id_ in letter]
        return [token]


def typed_in(prompt: Prompt, answer: str | Turn = "") -> str | None:
    """The users' texts in a prompt and its answer, without the template's; None if that is not known."""
    if not prompt.context:
        return None
    reply = Turn("assistant", answer) if isinstance(answer, str) else answer
    return "".join(text for turn in (*prompt.context, reply) for text in turn.texts()) + "".join(prompt.tools)


def _options(split_controls: bool) -> dict[str, bool]:
    return {"add_special_tokens": False, "split_special_tokens": split_controls}


def missing_bytes(tokenizer: Any) -> bytes | None:
    """The bytes without a token in a byte-level BPE tokenizer that neither adds, drops nor changes characters.

    Returns:
        None for any other tokenizer, which may lose characters.
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
