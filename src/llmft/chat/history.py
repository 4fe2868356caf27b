"""Conversation history -> the prompt of the next question, within a token budget."""

from dataclasses import dataclass, field
from typing import NamedTuple

from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.utils.errors import UserError


class Prompt(NamedTuple):
    """Token ids of a prompt, and how many of the oldest exchanges were dropped to fit the budget."""

    ids: list[int]
    dropped: int


@dataclass
class Conversation:
    """The questions and answers so far, with one answer per model that is compared.

    Attributes:
        codec: Encodes the prompt exactly as for a training example.
        max_prompt_tokens: Token budget of a prompt.
        single_turn: Whether a prompt holds only the new question.
        system: The system prompt, or None.
        exchanges: Each question with its answers by model role; the first answer stands in for a role that has none.
    """

    codec: Codec
    max_prompt_tokens: int
    single_turn: bool
    system: str | None = None
    exchanges: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def prompt(self, question: str, role: str) -> Prompt:
        """The prompt of the next question, with as many of the latest exchanges as fit.

        Raises:
            UserError: The question does not fit by itself, or the template rejects these turns.
        """
        ids: list[int] = []
        for dropped in range(len(self.exchanges) + 1):
            turns = self._turns([] if self.single_turn else self.exchanges[dropped:], role)
            ids = self.codec.prompt_ids(self.codec.template.render([*turns, Turn("user", question)]))
            if len(ids) <= self.max_prompt_tokens:
                return Prompt(ids, dropped)
            if self.single_turn:
                break
        raise UserError(f"the question has {len(ids)} tokens with its template; the limit is {self.max_prompt_tokens}")

    def messages(self, role: str) -> list[dict[str, str]]:
        """The full conversation as ``messages`` of a row of ``data=academic``."""
        return [{"role": turn.role, "content": turn.content} for turn in self._turns(self.exchanges, role)]

    def _turns(self, exchanges: list[tuple[str, dict[str, str]]], role: str) -> list[Turn]:
        turns = [Turn("system", self.system)] if self.system else []
        for question, answers in exchanges:
            turns += [Turn("user", question), Turn("assistant", answers.get(role) or next(iter(answers.values())))]
        return turns
