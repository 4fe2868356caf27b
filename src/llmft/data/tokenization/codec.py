"""Codecs: encode prompt and answer as input ids and labels, for seq2seq models (``causal`` has those of causal models).

Labels are on the answer and its stop token only (unless ``train_on=all``), and the prompt of a training example is encoded by
the same ``prompt_ids`` as in generation.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from llmft.data.records import Example, Turn
from llmft.data.tokenization.frames import TargetFrame, target_frame
from llmft.data.tokenization.template import Prompt
from llmft.data.tokenization.tokenizer import PromptTokenizer, typed_in
from llmft.utils.errors import UserError

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

    @property
    def answer_labels(self) -> list[int]:
        """Labels of the answer with its stop token."""
        return self.labels[self.prompt_length :] if self.joined else self.labels

    def stops_once(self, stop_ids: Collection[int]) -> bool:
        """Whether the answer's labels contain a stop token exactly once, at the end."""
        answer = self.answer_labels
        return answer[-1] in stop_ids and answer.count(answer[-1]) == 1

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
    # whether a conversation is one example, if its turns are rendered as they were when they were last
    joins_turns: ClassVar[bool] = False

    @cached_property
    def target_frame(self) -> TargetFrame:
        """What generation forces, and where a decoder starts; a causal model has neither."""
        return TargetFrame()

    @abstractmethod
    def encode(self, prompt: Prompt, answer: str | Turn, max_answer: int | None = None) -> EncodedExample:
        """Encode an example; an answer over ``max_answer`` tokens is truncated and gets no stop token."""

    def notes(self) -> list[str]:
        """What a user should know about the prompt template before training."""
        return self.template.notes()

    def parts(self, example: Example) -> list[Example]:
        """The examples that a conversation is split into, one per encoded example."""
        return [example]

    def with_turns(self, row: EncodedExample, prompt: Prompt, example: Example) -> EncodedExample:  # noqa: ARG002
        """The encoded example with labels on the trained turns of its prompt, and with the weights of all of them."""
        weight = example.weight * example.answer_weight
        if not weight:
            return replace(row, labels=[IGNORED] * len(row.labels), supervised=0)
        return row if weight == 1 else replace(row, weights=[weight] * len(row.labels))


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

    def texts(self, prompt: Prompt, answer: str | Turn) -> list[tuple[str, bool]]:
        """The prompt, and the answer as text."""
        target = [] if self._own_targets else [(self._target(answer), True)]
        return [(prompt.text, False), *target]

    def encode(self, prompt: Prompt, answer: str | Turn, max_answer: int | None = None) -> EncodedExample:
        """``input_ids`` the prompt, ``labels`` the answer and its stop token."""
        source = self.prompt_ids(prompt)
        text = self._target(answer)
        target = self._target_ids(text)
        lost = self.lost_characters(prompt.text, source, typed_in(prompt)) + self.lost_characters(text, target)
        ids = [*self.target_frame.forced, *target, self.stop_id]
        labels = ids[:max_answer]
        return EncodedExample(source, labels, len(source), len(ids), len(labels), len(labels) < len(ids), lost=lost)

    def _target(self, answer: str | Turn) -> str:
        """The text that the decoder learns: an answer, with its reasoning in tags if that is to be kept."""
        lead = self.template.frame[0]
        if isinstance(answer, str):
            return lead + answer
        if answer.tool_calls:
            raise UserError("tool_calls: a seq2seq model has no template for them; use a causal model")
        kept = answer.reasoning if self.template.reasoning == "keep" else None
        return lead + (f"<think>\n{kept}\n</think>\n\n{answer.content}" if kept else answer.content)

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
        return [*(example.at(number) for number in trained_turns(example.context)), example]


def trained_turns(context: Sequence[Turn]) -> list[int]:
    """The places of the earlier assistant turns that are trained."""
    return [number for number, turn in enumerate(context) if turn.role == "assistant" and turn.weight]
