"""Ids and labels of a row, from its file and the prompt template alone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llmft.referee.files import SEVERAL, read_row
from llmft.referee.rows import IGNORED

ROLES = {"system", "user", "assistant"}


class NotRendered(Exception):
    """A row that the referee has no rule for; the message says why."""


@dataclass
class Rendered:
    """A row's ids and labels, and its weight in the loss."""

    input_ids: list[int]
    labels: list[int]
    weight: float


@dataclass
class Renderer:
    """Renders rows for a model.

    Attributes:
        causal: Whether the model is decoder-only.
        tokenizer: Of the model.
        template: A Jinja prompt template of ``conf/prompt``; None for the tokenizer's chat template.
        files: The files of the data set, by their names in the places of rows.
        kind: The class of the data set.
        columns: ``data.columns``, by role.
        system: ``data.system``.
        stop_ids: Ids that end a generation of the model, besides the tokenizer's EOS.
        train_on: ``data.train_on``.
        every_turn: Whether every assistant turn is trained.
        budgets: Max tokens of a prompt and of an answer.
        variables: ``prompt.template_kwargs``.
        refused: Why no row can be rendered; empty if they can.
    """

    causal: bool
    tokenizer: Any
    template: str | None
    files: Mapping[str, Path]
    kind: str
    columns: Mapping[str, str]
    system: str | None
    stop_ids: Collection[int]
    train_on: str
    every_turn: bool
    budgets: tuple[int, int]
    variables: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""

    def render(self, place: str) -> Rendered:
        """The ids of the row at ``<file>:<line>``.

        Raises:
            NotRendered: There is no rule for it.
        """
        if self.refused:
            raise NotRendered(self.refused)
        row = read_row(self.files, place)
        if row is SEVERAL:
            raise NotRendered("several rows begin in one line of its file")
        if not isinstance(row, Mapping):
            raise NotRendered("its file is of a kind that the referee does not read")
        messages = self._messages(row)
        texts = [message["content"] for message in messages]
        if any(special in text for special in self._specials for text in texts):
            raise NotRendered("a text contains a control token")
        if any("<think>" in text for text in texts) or row.get("tools"):
            raise NotRendered("it has reasoning or tools")
        if self.every_turn and sum(message["role"] == "assistant" for message in messages) > 1:
            raise NotRendered("several of its turns are trained")
        ids, labels = (self._causal if self.causal else self._seq2seq)(messages)
        weight = row.get(self.columns.get("weight", "weight"))
        return Rendered(ids, labels, 1.0 if weight is None else float(weight))

    @cached_property
    def _specials(self) -> set[str]:
        """The control tokens of the tokenizer."""
        return {str(token) for token in self.tokenizer.added_tokens_decoder.values()}

    def _messages(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The conversation of a row by the rule of its data set, the answer last."""
        if self.kind not in RULES:
            raise NotRendered(f"there is no rule for the rows of {self.kind}")
        try:
            messages = RULES[self.kind](row, self.columns)
        except KeyError as error:
            raise NotRendered(f"it has no field {error}, so there is no rule for it") from None
        if self.system and messages[0]["role"] != "system":
            messages = [_message("system", self.system), *messages]
        return messages

    def _text(self, messages: Sequence[Mapping[str, Any]], turn_end: str, *, generate: bool) -> str:
        own = {} if self.template is None else {"chat_template": self.template, "turn_end": turn_end}
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generate, **own, **self.variables
            )
        except Exception as error:  # the template raises an error of its own, such as for a system turn
            raise NotRendered(f"the template refuses it ({type(error).__name__})") from error

    def _causal(self, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
        eos, answer = self.tokenizer.eos_token, messages[-1]["content"]
        stops = {eos, *(self.tokenizer.convert_ids_to_tokens(i) for i in self.stop_ids)}
        prompt, whole = (
            self._bos() + self._text(turns, eos, generate=generate)
            for turns, generate in ((messages[:-1], True), (messages, False))
        )
        if not whole.startswith(prompt):
            raise NotRendered("the prompt is no start of the conversation")
        if messages[0]["role"] == "system" and messages[0]["content"].strip() not in prompt:
            raise NotRendered("the template leaves out the system turn")
        rest = whole[len(prompt) :]
        end = rest.find(answer.strip()) + len(answer.strip())
        if end < len(answer.strip()):
            raise NotRendered("the template changes the answer")
        trained = _stopped(rest, end, stops, self._specials)
        prompt_ids, ids = self._ids(prompt), self._ids(prompt + trained)
        if ids[: len(prompt_ids)] != prompt_ids:
            ids = prompt_ids + self._ids(trained)
        start = len(prompt_ids)
        if start > self.budgets[0] or len(ids) - start > self.budgets[1]:
            raise NotRendered("it is longer than its token budget")
        return ids, ids if self.train_on == "all" else [IGNORED] * start + ids[start:]

    def _seq2seq(self, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
        tokenizer = self.tokenizer
        if self.template is None or hasattr(tokenizer, "src_lang") or hasattr(tokenizer, "spm_target"):
            raise NotRendered("the tokenizer translates, or has a chat template")
        source, answer = self._text(messages[:-1], "", generate=True), messages[-1]["content"]
        source, labels = tokenizer(source)["input_ids"], tokenizer(text_target=answer)["input_ids"]
        if labels[-1] != tokenizer.eos_token_id:  # what it puts before a text without an EOS is no label (T5Gemma)
            labels = tokenizer(text_target=answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        if len(source) > self.budgets[0] or len(labels) > self.budgets[1]:
            raise NotRendered("it is longer than its token budget")
        return source, labels

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _bos(self) -> str:
        """The BOS before a text template, if the tokenizer puts one before raw text."""
        bos = self.tokenizer.bos_token
        raw = self.tokenizer("a")["input_ids"] if self.template is not None and bos else []
        return bos if raw[:1] == [self.tokenizer.bos_token_id] else ""


def _stopped(rest: str, end: int, stops: Collection[str], specials: set[str]) -> str:
    """An answer up to the first token that ends a generation, else the first control token, else an EOS that is added."""
    found = sorted((rest.find(token, end), token) for token in specials if rest.find(token, end) >= 0)
    at, stop = next(((at, token) for at, token in found if token in stops), found[0] if found else (-1, ""))
    if at >= 0:
        return rest[: at + len(stop)]
    if len(stops) > 1:
        raise NotRendered("the template writes no end of a turn, and the model has several")
    return rest + next(iter(stops))


def _message(role: str, content: str, input_: str = "") -> dict[str, Any]:
    full = f"{content}\n\n{input_}" if input_ else content
    return {"role": role, "content": full, "instruction": content, "input": input_}


def _question(question: str, answer: str, system: str | None = None, input_: str = "") -> list[dict[str, Any]]:
    before = [_message("system", system)] if system and system.strip() else []
    return [*before, _message("user", question, input_), _message("assistant", answer)]


def _alpaca(row: Mapping[str, Any], _: Mapping[str, str]) -> list[dict[str, Any]]:
    if row.get("history"):
        raise NotRendered("it has a history")
    given = row["input"] if row["input"].strip() else ""
    return _question(row["instruction"], row["output"], row.get("system"), given)


def _chat(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    turns = row[columns.get("messages", "messages")]
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and set(turn) == {"role", "content"} and isinstance(turn["content"], str)
        for turn in turns
    ):
        raise NotRendered("its turns are more than role and content")
    if not {turn["role"] for turn in turns} <= ROLES:
        raise NotRendered("it has a role of its own")
    system = row.get(columns.get("system", "system"))
    if system and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system}, *turns]
    return [_message(turn["role"], turn["content"]) for turn in turns]


def _custom(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    if "messages" in columns:
        return _chat(row, columns)
    if "history" in columns or "reasoning" in columns:
        raise NotRendered("it has a history or reasoning")
    system, given = (row[columns[role]] if role in columns else None for role in ("system", "input"))
    return _question(row[columns["instruction"]], row[columns["output"]], system, given or "")


# By the class of the data set: the rules that docs/data.md states.
RULES = {
    "Alpaca": _alpaca,
    "Academic": _chat,
    "OpenOrca": lambda row, _: _question(row["question"], row["response"], row["system_prompt"]),
    "Psychology": lambda row, _: _question(row["question"], row["response_j"]),
    "KeywordQA": lambda row, _: _question(row["question"], ", ".join(row["answer_keywords"])),
    "Custom": _custom,
}
