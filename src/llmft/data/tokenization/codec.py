"""(prompt, answer) -> ids and labels: fork 1 of the two families.

Both codecs hold label convention A: the answer and its stop token are trained, nothing else; and both encode the prompt of a
training row by the same ``prompt_ids`` that generation uses.
"""

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from llmft.data.records import Example, Turn
from llmft.data.tokenization.template import Prompt
from llmft.data.tokenization.tokenizer import PromptTokenizer

IGNORED = -100


@dataclass(frozen=True)
class EncodedExample:
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
class Codec(PromptTokenizer):
    """How training rows are made of a backbone's tokens.

    Attributes:
        train_on: ``answer``, or ``all`` for prompt and answer (causal only).
        train_on_turns: Of a conversation: ``last`` trains its last answer, ``all`` every assistant turn.
    """

    train_on: str = "answer"
    train_on_turns: str = "last"
    tails: dict[tuple[str, str], list[int]] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> EncodedExample:
        """A training row; an answer over ``max_answer`` tokens is cut there and gets no stop token."""

    def parts(self, example: Example) -> list[Example]:
        """The examples that a conversation becomes: one training row each."""
        return [example]

    def with_turns(self, row: EncodedExample, context: Sequence[Turn]) -> EncodedExample:  # noqa: ARG002
        """The row with labels on what else of its context is trained."""
        return row

    def _stopped(self, answer_ids: list[int], max_answer: int | None) -> tuple[list[int], int]:
        """The answer's ids with the stop token, cut at ``max_answer``, and their number before the cut."""
        whole = [*answer_ids, self.stop_id]
        return whole[:max_answer], len(whole)


class Seq2SeqCodec(Codec):
    """Prompt to the encoder, answer to the decoder; the model itself shifts the labels."""

    def texts(self, prompt: Prompt, answer: str) -> list[tuple[str, bool]]:
        """The prompt, and the answer as text."""
        return [(prompt.text, False), (self.template.frame[0] + answer, True)]

    def encode(self, prompt: Prompt, answer: str, max_answer: int | None = None) -> EncodedExample:
        """``input_ids`` the prompt, ``labels`` the answer and its stop token."""
        source = self.prompt_ids(prompt)
        target = self._text_ids(self.template.frame[0] + answer, split_controls=True)
        lost = self.lost_characters(prompt.text, source) + self.lost_characters(answer, target)
        labels, length = self._stopped(target, max_answer)
        return EncodedExample(source, labels, len(source), length, len(labels), len(labels) < length, lost=lost)

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

    def with_turns(self, row: EncodedExample, context: Sequence[Turn]) -> EncodedExample:
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
