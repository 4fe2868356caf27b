"""The codec of causal models: prompt and answer in one sequence, both as the template renders the conversation."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import IGNORED, Codec, EncodedExample, trained_turns
from llmft.data.tokenization.layout import USER, answer_of
from llmft.data.tokenization.pieces import Pieces
from llmft.data.tokenization.template import Prompt
from llmft.data.tokenization.tokenizer import typed_in
from llmft.utils.errors import UserError


@dataclass(frozen=True)
class Dialogue:
    """A prompt and its answer as the template writes them.

    Attributes:
        prompt: The generation prompt.
        rest: What the model has to generate, up to its stop token.
        continues: Whether ``prompt`` and ``rest`` together are what the template writes.
    """

    prompt: Prompt
    rest: Pieces
    continues: bool

    @property
    def whole(self) -> Prompt:
        """Prompt and answer as one text."""
        pieces = self.prompt.pieces
        return Prompt((*pieces[:-1], pieces[-1] + self.rest[0], *self.rest[1:]))


@dataclass
class CausalCodec(Codec):
    """Prompt and answer in one sequence; labels are unshifted (the loss shifts them)."""

    joins_turns: ClassVar[bool] = True
    tails: dict[tuple[str, str], list[int]] = field(default_factory=dict, init=False, repr=False)
    rendered: dict[tuple[Any, ...], Dialogue] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self.stop_id, *_ = self.stop_ids = self._stop_ids()
        except UserError:  # a text of its own can be encoded with any template
            super().__post_init__()

    def _stop_ids(self) -> tuple[int, ...]:
        layouts = [self.template.layout, *([self.template.with_tools.layout] if self.template.with_tools else [])]
        stops = dict.fromkeys(stop for layout in layouts for stop in layout.stops)
        return tuple(map(self.tokenizer.convert_tokens_to_ids, stops))

    def check(self) -> None:
        """Check that the template can be trained with.

        Raises:
            UserError: It cannot be told which tokens of a conversation are an answer.
        """
        self._stop_ids()

    @cached_property
    def lead(self) -> str:
        """As decoded text; special tokens are left out, as in every decoded answer."""
        ids = self.prompt_ids(Prompt(self.template.layout.lead))
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @property
    def was_spelled(self) -> bool:
        """Whether versions without ``Layout`` made other ids: letters of a lead with control tokens, or another stop token."""
        layout = self.template.layout
        return (layout.lead, layout.plain.stop) != (
            (self.template.frame[0],),
            self.template.frame[1] or layout.plain.stop,
        )

    def texts(self, prompt: Prompt, answer: str | Turn) -> list[tuple[str, bool]]:
        """Prompt plus answer; also the prompt separately, if its ids are not a prefix of the former's."""
        dialogue = self.rendered[_key(prompt, answer)] = self.dialogue(prompt, answer)
        if not dialogue.continues:
            return [(prompt.text, False), ("".join(dialogue.rest), False)]
        whole = (dialogue.whole.text, False)
        return [whole] if len(prompt.pieces) > 1 else [whole, (prompt.text, False)]

    def forget(self) -> None:
        """Free what ``look_ahead`` has rendered and tokenized."""
        super().forget()
        self.rendered.clear()

    def dialogue(self, prompt: Prompt, answer: str | Turn) -> Dialogue:
        """A prompt and its answer as the template writes them.

        Raises:
            UserError: The template leaves out or changes the answer.
        """
        if self.rendered and (found := self.rendered.get(_key(prompt, answer))):
            return found
        if not prompt.context:  # a text of its own
            text = answer if isinstance(answer, str) else answer.content
            stop = self.tokenizer.convert_ids_to_tokens(self.stop_id)
            return Dialogue(prompt, (self.template.frame[0] + text, stop, ""), continues=True)
        reply = Turn("assistant", answer) if isinstance(answer, str) else answer
        rest, continues = self._rest(prompt, reply)
        _check_complete("".join(rest), self.template.for_tools(prompt.tools).prepared(reply))
        return Dialogue(prompt, rest, continues)

    def _rest(self, prompt: Prompt, reply: Turn) -> tuple[Pieces, bool]:
        template = self.template.for_tools(prompt.tools)
        layout = template.layout
        tail = layout.tail(reply)

        def rendered(context: Iterable[Turn], tools: Iterable[str] = ()) -> Pieces:
            cut = tail.cut(template.pieces((*context, reply), tuple(tools), generate=False))
            if cut is None:
                raise UserError("prompt template: ends this conversation in a way of its own; choose another prompt")
            return cut

        whole = rendered(prompt.context, prompt.tools)
        reasons = bool(template.prepared(reply).reasoning)
        return answer_of(prompt.pieces, whole, layout, lambda: rendered([USER], template.probe_tools), reasons=reasons)

    def encode(self, prompt: Prompt, answer: str | Turn, max_answer: int | None = None) -> EncodedExample:
        """``input_ids`` prompt + answer + stop token; ``labels`` the same, -100 on the prompt."""
        dialogue = self.dialogue(prompt, answer)
        start, tail, merged = self._ids(dialogue)
        lost = self.lost_characters(dialogue.whole.text, start + tail, typed_in(prompt, answer))
        labels = (start if self.train_on == "all" else [IGNORED] * len(start)) + tail[:max_answer]
        cut = max_answer is not None and len(tail) > max_answer
        return EncodedExample(
            start + tail[:max_answer], labels, len(start), len(tail), _trained(labels), cut, merged, lost
        )

    def _ids(self, dialogue: Dialogue) -> tuple[list[int], list[int], bool]:
        """Ids of prompt and answer, and whether tokens would merge across the boundary."""
        prompt = dialogue.prompt
        if not dialogue.continues:
            return self.prompt_ids(prompt), self.prompt_ids(Prompt(dialogue.rest)), False
        whole = dialogue.whole
        ids = self.prompt_ids(whole)
        start = self._start(prompt, whole, ids)
        if ids[: len(start)] == start:
            return start, ids[len(start) :], False
        return start, self.prompt_ids(Prompt(dialogue.rest)), True

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

    def parts(self, example: Example) -> list[Example]:
        """The example; one per trained turn if an earlier turn is rendered otherwise than when it was the last."""
        if self.train_on_turns == "last" or self.train_on == "all":
            return [example]
        earlier = [example.at(number) for number in trained_turns(example.context)]
        if not earlier or self._holds(example, earlier):
            return [example]
        last = replace(example, context=tuple(replace(turn, weight=0.0) for turn in example.context))
        return [*earlier, *([last] if example.answer_weight else [])]

    def _holds(self, example: Example, earlier: Iterable[Example]) -> bool:
        """Whether a conversation starts with each earlier prompt and its answer, token by token."""
        start, tail, _ = self._ids(self.dialogue(self._prompt(example), example.reply))
        whole = start + tail
        for part in earlier:
            start, tail, merged = self._ids(self.dialogue(self._prompt(part), part.reply))
            if merged or whole[: len(start) + len(tail)] != start + tail:
                return False
        return True

    def _prompt(self, example: Example) -> Prompt:
        return self.template.render(example.context, example.tools)

    def with_turns(self, row: EncodedExample, prompt: Prompt, example: Example) -> EncodedExample:
        """Labels on earlier assistant turns and their stop tokens, if their ids are those of an answer at that turn."""
        if self.train_on == "all":
            return super().with_turns(row, prompt, example)
        if self.train_on_turns == "last" and example.weight == example.answer_weight == 1:
            return row
        labels, missed = list(row.labels), 0
        spans = {(row.prompt_length, len(labels)): example.weight * example.answer_weight}
        for number in trained_turns(prompt.context) if self.train_on_turns == "all" else ():
            earlier = self.template.render(prompt.context[:number], prompt.tools)
            start, tail, merged = self._ids(self.dialogue(earlier, prompt.context[number]))
            end = len(start) + len(tail)
            if not merged and row.input_ids[:end] == start + tail:
                labels[len(start) : end] = tail
                spans[len(start), end] = example.weight * prompt.context[number].weight
            else:
                missed += 1
        for (start, end), weight in spans.items():
            if not weight:
                labels[start:end] = [IGNORED] * (end - start)
        weights = _weights(spans, len(labels)) if any(weight not in (0, 1) for weight in spans.values()) else None
        return replace(row, labels=labels, supervised=_trained(labels), untrained_turns=missed, weights=weights)


def _weights(spans: dict[tuple[int, int], float], length: int) -> list[float]:
    """The weight of each label."""
    weights = [1.0] * length
    for (start, end), weight in spans.items():
        weights[start:end] = [weight] * (end - start)
    return weights


def _key(prompt: Prompt, answer: str | Turn) -> tuple[Any, ...]:
    return prompt.pieces, prompt.context, prompt.tools, answer


def _check_complete(text: str, reply: Turn) -> None:
    """Check that a template writes all of an answer."""
    if reply.content.strip() not in text:
        beside = " beside its tool_calls" if reply.tool_calls else ""
        raise UserError(f"prompt template: leaves out or changes the text of an answer{beside}; choose another prompt")
    for call in reply.tool_calls:
        name = json.loads(call).get("function", json.loads(call)).get("name", "")
        if name not in text:
            raise UserError(f"prompt template: leaves out the call of {name}; choose another prompt")


def _trained(labels: list[int]) -> int:
    """The number of labels of a causal example in the loss: all except that of the first position."""
    return len(labels) - labels.count(IGNORED) - (labels[0] != IGNORED)
