"""(prompt, answer) -> ids and labels: fork 1 of the two families.

Both codecs hold label convention A: the answer and its stop token are trained, nothing else; and both encode the prompt of a
training row by the same ``prompt_ids`` that generation uses.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llmft.prompts import Prompt, PromptTemplate
from llmft.records import Example, Turn

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """One training row, unpadded.

    Attributes:
        input_ids: Seq2seq: the source with its EOS. Causal: prompt, answer and stop token.
        labels: Seq2seq: the target with its stop token. Causal: as long as ``input_ids``, unshifted, -100 where not trained.
        prompt_length: How many of ``input_ids`` are the prompt.
        answer_length: Tokens of the answer with its stop token, before any cut.
        supervised: How many labels enter the loss (a causal model predicts nothing for the first position).
        cut: The answer was cut and has no stop token.
        merged: The prompt's ids are no prefix of the ids of prompt and answer, so the answer was tokenised alone.
        lost: Characters of prompt and answer that the tokenizer cannot give back.
        untrained_turns: Earlier assistant turns that should be trained, but whose ids are not in the prompt as generation
            would have continued them.
    """

    input_ids: list[int]
    labels: list[int]
    prompt_length: int
    answer_length: int
    supervised: int
    cut: bool = False
    merged: bool = False
    lost: str = ""
    untrained_turns: int = 0
    place: str = ""

    @property
    def joined(self) -> bool:
        """Whether prompt and answer are one sequence (causal), so that labels stand beside ``input_ids``."""
        return self.prompt_length < len(self.input_ids)

    def stops_once(self, stop_id: int) -> bool:
        """Whether the labels of the answer hold one stop token, at their end."""
        answer = self.labels[self.prompt_length :] if self.joined else self.labels
        return answer.count(stop_id) == 1 and answer[-1] == stop_id

    @property
    def size(self) -> tuple[int, ...]:
        """Tokens of the one sequence (causal), or of source and target (seq2seq): what batches are planned by."""
        return (len(self.input_ids),) if self.joined else (len(self.input_ids), len(self.labels))


@dataclass
class Codec(ABC):
    """Tokenizer and prompt template of a backbone, joined.

    Attributes:
        tokenizer: A Hugging Face tokenizer.
        template: The prompt template; its control tokens become single ids, those in users' text stay text.
        stop_id: The id that ends every trained answer.
        train_on: ``answer``, or ``all`` for prompt and answer (causal only).
        train_on_turns: Of a conversation: ``last`` trains its last answer, ``all`` every assistant turn.
    """

    tokenizer: Any
    template: PromptTemplate
    train_on: str = "answer"
    train_on_turns: str = "last"
    stop_id: int = field(init=False)
    ahead: dict[tuple[str, bool], list[int]] = field(default_factory=dict, init=False, repr=False)
    tails: dict[tuple[str, str], list[int]] = field(default_factory=dict, init=False, repr=False)

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

    @cached_property
    def missing_bytes(self) -> bytes | None:
        """The bytes that a byte-level tokenizer does not know; None of one that may lose anything."""
        return missing_bytes(self.tokenizer)

    @abstractmethod
    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> Encoded:
        """A training row; an answer over ``max_answer`` tokens is cut there and gets no stop token."""

    def parts(self, example: Example) -> list[Example]:
        """The examples that a conversation becomes: one training row each."""
        return [example]

    def with_turns(self, row: Encoded, context: Sequence[Turn]) -> Encoded:  # noqa: ARG002
        """The row with labels on what else of its context is trained."""
        return row

    def decode(self, ids: list[int]) -> str:
        """Generated ids as text: no special tokens, nothing tidied, no lead of the template."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.removeprefix(self.template.frame[0])

    def lost_characters(self, text: str, ids: list[int]) -> str:
        """The characters of ``text`` that do not come back from its ids (T5 loses newlines, braces, ...), sorted."""
        if self.missing_bytes is not None:  # all other bytes come back
            raw = text.encode()
            if len(raw.translate(None, self.missing_bytes)) == len(raw):
                return ""
        back = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return "".join(sorted((Counter(text) - Counter(back)).elements()))

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

    def _as_text(self, token: int, written: str) -> list[int]:
        """The id of a piece; a control token that was written out in text is given letter by letter."""
        written = written.strip()
        if written in self.template.controls and self.tokenizer.convert_tokens_to_ids(written) == token:
            return self.tokenizer.convert_tokens_to_ids(list(written))
        return [token]

    def _stopped(self, answer_ids: list[int], max_answer: int | None) -> tuple[list[int], int]:
        """The answer's ids with the stop token, cut at ``max_answer``, and their number before the cut."""
        whole = [*answer_ids, self.stop_id]
        return whole[:max_answer], len(whole)


class Seq2SeqCodec(Codec):
    """Prompt to the encoder, answer to the decoder; the model itself shifts the labels."""

    def texts(self, prompt: Prompt, answer: str) -> list[tuple[str, bool]]:
        """The prompt, and the answer as text."""
        return [(prompt.text, False), (self.template.frame[0] + answer, True)]

    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> Encoded:
        """``input_ids`` the prompt, ``labels`` the answer and its stop token."""
        source = self.prompt_ids(prompt)
        target = self._text_ids(self.template.frame[0] + answer, split_controls=True)
        lost = self.lost_characters(prompt.text, source) + self.lost_characters(answer, target)
        labels, length = self._stopped(target, max_answer)
        return Encoded(source, labels, len(source), length, len(labels), len(labels) < length, lost=lost)

    def parts(self, example: Example) -> list[Example]:
        """Each assistant turn that is trained is a target of its own, under the turns before it."""
        if self.train_on_turns == "last":
            return [example]
        context = example.context
        earlier = [i for i, turn in enumerate(context) if turn.role == "assistant"]
        return [*(replace(example, context=context[:i], answer=context[i].content) for i in earlier), example]


class CausalCodec(Codec):
    """Prompt and answer in one sequence; labels stand at the position of their own id (the loss shifts them)."""

    def texts(self, prompt: Prompt, answer: str) -> list[tuple[str, bool]]:
        """Prompt and answer together; the prompt alone too where its ids do not follow from that."""
        whole = prompt.followed_by(self.template.frame[0] + answer)
        return [(whole.text, False)] if len(prompt.pieces) > 1 else [(whole.text, False), (prompt.text, False)]

    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> Encoded:
        """``input_ids`` prompt + answer + stop token; ``labels`` the same, -100 on the prompt."""
        whole = prompt.followed_by(self.template.frame[0] + answer)
        ids = self.prompt_ids(whole)
        start = self._start(prompt, whole, ids)
        merged = ids[: len(start)] != start
        if merged:
            ids = start + self._text_ids(self.template.frame[0] + answer, split_controls=True)
        lost = self.lost_characters(whole.text, ids)
        tail, length = self._stopped(ids[len(start) :], max_answer)
        head = start if self.train_on == "all" else [IGNORED] * len(start)
        labels = head + tail
        supervised = _trained(labels)
        return Encoded(start + tail, labels, len(start), length, supervised, len(tail) < length, merged, lost)

    def _start(self, prompt: Prompt, whole: Prompt, ids: list[int]) -> list[int]:
        """The prompt's own ids, which ``prompt_ids`` gives too, taken from those of prompt and answer where they must agree.

        A tokenizer cuts a text at its control tokens before anything else, so up to the last one of the prompt both are
        the same; what the prompt has behind it (``assistant`` and a newline, say) is the same for all rows of a template.
        """
        plain = self._control_ids and not any(map(self._names_control, whole.pieces[::2]))
        if len(prompt.pieces) == 1 or not plain:
            return self.prompt_ids(prompt)
        last = -1
        for control in prompt.pieces[1::2]:
            last = ids.index(self._control_ids[control], last + 1)
        end = prompt.pieces[-2], prompt.pieces[-1]
        if end not in self.tails:
            start = self.prompt_ids(prompt)
            if start[: last + 1] != ids[: last + 1]:
                return start
            self.tails[end] = start[last + 1 :]
        return ids[: last + 1] + self.tails[end]

    @cached_property
    def _control_ids(self) -> dict[str, int]:
        """Ids of control tokens that only their own text becomes: none where a normalizer may make it of another text."""
        if (
            not getattr(self.tokenizer, "is_fast", False)
            or json.loads(self.tokenizer.backend_tokenizer.to_str())["normalizer"]
        ):
            return {}
        return {control: self.tokenizer.convert_tokens_to_ids(control) for control in self.template.controls}

    def with_turns(self, row: Encoded, context: Sequence[Turn]) -> Encoded:
        """Labels on earlier assistant turns and their stop tokens, where they stand as an answer at that turn would."""
        if self.train_on_turns == "last" or self.train_on == "all":
            return row
        labels, missed = list(row.labels), 0
        for number, turn in enumerate(context):
            if turn.role != "assistant":
                continue
            prompt = self.template.render(context[:number])
            start = self.prompt_ids(prompt)
            whole = [*self.prompt_ids(prompt.followed_by(self.template.frame[0] + turn.content)), self.stop_id]
            if whole[: len(start)] == start and row.input_ids[: len(whole)] == whole:
                labels[len(start) : len(whole)] = whole[len(start) :]
            else:
                missed += 1
        supervised = _trained(labels)
        return replace(row, labels=labels, supervised=supervised, untrained_turns=missed)


def _trained(labels: list[int]) -> int:
    """How many labels of a causal row enter the loss: all but the first position's."""
    return len(labels) - labels.count(IGNORED) - (labels[0] != IGNORED)


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
