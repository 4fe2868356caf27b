"""Codecs: encode prompt and answer as input ids and labels, for causal and for seq2seq models.

Labels are on the answer and its stop token only (unless ``train_on=all``), and the prompt of a training example is encoded by
the same ``prompt_ids`` as in generation.
"""

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from llmft.data.records import Example, Turn
from llmft.data.tokenization.frames import TargetFrame, target_frame
from llmft.data.tokenization.template import Prompt
from llmft.data.tokenization.tokenizer import PromptTokenizer

IGNORED = -100


@dataclass(frozen=True)
class EncodedExample:
    """An encoded training example, unpadded.

    Attributes:
        input_ids: Seq2seq: the source with its EOS. Causal: prompt, answer and stop token.
        labels: Seq2seq: the target with its stop token. Causal: as long as ``input_ids``, unshifted, -100 on untrained tokens.
        prompt_length: Number of ``input_ids`` of the prompt.
        answer_length: Tokens of the answer with its stop token, before truncation.
        supervised: Number of labels in the loss (a causal model predicts nothing for the first position).
        cut: Whether the answer was truncated, so that it has no stop token.
        merged: Whether the answer was tokenized separately, because the ids of prompt and answer do not start with the prompt's.
        lost: Characters of prompt and answer that decoding the ids does not give back.
        untrained_turns: Number of earlier assistant turns without labels, because the prompt does not contain their ids as
            generation would have produced them.
        weights: Of each label's loss, as long as ``labels``; None if all are 1.
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
    weights: list[float] | None = None

    @property
    def joined(self) -> bool:
        """Whether prompt and answer are one sequence (causal), so that labels are aligned with ``input_ids``."""
        return self.prompt_length < len(self.input_ids)

    def stops_once(self, stop_id: int) -> bool:
        """Whether the answer's labels contain the stop token exactly once, at the end."""
        answer = self.labels[self.prompt_length :] if self.joined else self.labels
        return answer.count(stop_id) == 1 and answer[-1] == stop_id

    @property
    def size(self) -> tuple[int, ...]:
        """Tokens of the sequence (causal), or of source and target (seq2seq)."""
        return (len(self.input_ids),) if self.joined else (len(self.input_ids), len(self.labels))


@dataclass
class Codec(PromptTokenizer):
    """Encodes training examples for a backbone.

    Attributes:
        train_on: ``answer``, or ``all`` for prompt and answer (causal only).
        train_on_turns: ``last`` trains the last answer of a conversation, ``all`` every assistant turn.
    """

    train_on: str = "answer"
    train_on_turns: str = "last"
    tails: dict[tuple[str, str], list[int]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def target_frame(self) -> TargetFrame:
        """What generation forces, and where a decoder starts; a causal model has neither."""
        return TargetFrame()

    @abstractmethod
    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> EncodedExample:
        """Encode an example; an answer over ``max_answer`` tokens is truncated and gets no stop token."""

    def parts(self, example: Example) -> list[Example]:
        """The examples that a conversation is split into, one per encoded example."""
        return [example]

    def with_turns(self, row: EncodedExample, context: Sequence[Turn]) -> EncodedExample:  # noqa: ARG002
        """The encoded example with labels on the trained turns of its context."""
        return row

    def _stopped(self, answer_ids: list[int], max_answer: int | None) -> tuple[list[int], int]:
        """The answer's ids with the stop token, truncated to ``max_answer``, and their number before that."""
        ids = [*answer_ids, self.stop_id]
        return ids[:max_answer], len(ids)


class Seq2SeqCodec(Codec):
    """The prompt for the encoder, the answer for the decoder; the model shifts the labels.

    Labels begin with the token that generation forces, if there is one (``TargetFrame.forced``).
    """

    @cached_property
    def target_frame(self) -> TargetFrame:
        """How labels begin, and where the decoder starts."""
        return target_frame(self.tokenizer)

    @cached_property
    def _own_targets(self) -> bool:
        """Whether the tokenizer has another model for targets (Marian)."""
        return hasattr(self.tokenizer, "spm_target")

    def texts(self, prompt: Prompt, answer: str) -> list[tuple[str, bool]]:
        """The prompt, and the answer as text."""
        target = [] if self._own_targets else [(self.template.frame[0] + answer, True)]
        return [(prompt.text, False), *target]

    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> EncodedExample:
        """``input_ids`` the prompt, ``labels`` the answer and its stop token."""
        source = self.prompt_ids(prompt)
        target = self._target_ids(self.template.frame[0] + answer)
        lost = self.lost_characters(prompt.text, source) + self.lost_characters(answer, target)
        labels, length = self._stopped([*self.target_frame.forced, *target], max_answer)
        return EncodedExample(source, labels, len(source), length, len(labels), len(labels) < length, lost=lost)

    def _target_ids(self, text: str) -> list[int]:
        if not self._own_targets:
            return self._text_ids(text, split_controls=True)
        self.tokenizer._switch_to_target_mode()
        try:
            return self._text_ids(text, split_controls=True)
        finally:
            self.tokenizer._switch_to_input_mode()

    def parts(self, example: Example) -> list[Example]:
        """One example per trained assistant turn, with the turns before it as its context."""
        if self.train_on_turns == "last":
            return [example]
        context = example.context
        earlier = [i for i, turn in enumerate(context) if turn.role == "assistant"]
        return [*(replace(example, context=context[:i], answer=context[i].content) for i in earlier), example]


class CausalCodec(Codec):
    """Prompt and answer in one sequence; labels are unshifted (the loss shifts them)."""

    def texts(self, prompt: Prompt, answer: str) -> list[tuple[str, bool]]:
        """Prompt plus answer; also the prompt separately, if its ids are not a prefix of the former's."""
        whole = prompt.followed_by(self.template.frame[0] + answer)
        return [(whole.text, False)] if len(prompt.pieces) > 1 else [(whole.text, False), (prompt.text, False)]

    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> EncodedExample:
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
        return EncodedExample(start + tail, labels, len(start), length, supervised, len(tail) < length, merged, lost)

    def _start(self, prompt: Prompt, whole: Prompt, ids: list[int]) -> list[int]:
        """The ids of the prompt, as ``prompt_ids``, but taken from the ids of prompt and answer as far as these must agree.

        A tokenizer first splits a text at its control tokens, so the ids agree up to the last one of the prompt; the text after
        it (such as ``assistant`` and a newline) is the same for all examples of a template.
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
        """Ids of the control tokens; empty if a normalizer may turn other text into one."""
        if (
            not getattr(self.tokenizer, "is_fast", False)
            or json.loads(self.tokenizer.backend_tokenizer.to_str())["normalizer"]
        ):
            return {}
        return {control: self.tokenizer.convert_tokens_to_ids(control) for control in self.template.controls}

    def with_turns(self, row: EncodedExample, context: Sequence[Turn]) -> EncodedExample:
        """Labels on earlier assistant turns and their stop tokens, if their ids are those of an answer at that turn."""
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
    """The number of labels of a causal example in the loss: all except that of the first position."""
    return len(labels) - labels.count(IGNORED) - (labels[0] != IGNORED)
