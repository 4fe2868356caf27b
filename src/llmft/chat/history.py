"""Questions and answers so far -> the prompt of the next question, within a budget of tokens."""

from dataclasses import dataclass, field
from typing import NamedTuple

from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.utils.errors import UserError


class Asked(NamedTuple):
    """A prompt's ids, and how many of the oldest questions it leaves out."""

    ids: list[int]
    left_out: int


@dataclass
class Conversation:
    """What was said; a model that is compared goes on from its own words.

    Attributes:
        codec: Makes the prompt, exactly as for a training row.
        room: The most tokens of a prompt.
        single: Each question is asked alone.
        system: The system line.
        said: Each question with the answers by the model's role; the first answer is what others fall back to.
    """

    codec: Codec
    room: int
    single: bool
    system: str | None = None
    said: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def ask(self, question: str, role: str) -> Asked:
        """The prompt of the next question: as many of the last turns as there is room for.

        Raises:
            UserError: There is no room for the question alone, or the template does not take these turns.
        """
        ids: list[int] = []
        for left_out in range(len(self.said) + 1):
            turns = self._turns(self.said[left_out:], role)
            ids = self.codec.prompt_ids(self.codec.template.render([*turns, Turn("user", question)]))
            if len(ids) <= self.room:
                return Asked(ids, 0 if self.single else left_out)
            if self.single:
                break
        raise UserError(f"the question has {len(ids)} tokens with its template; there is room for {self.room}")

    def messages(self, role: str) -> list[dict[str, str]]:
        """All of it as a row of ``data=academic``."""
        turns = self._turns(self.said, role, whole=True)
        return [{"role": turn.role, "content": turn.content} for turn in turns]

    def _turns(self, said: list[tuple[str, dict[str, str]]], role: str, *, whole: bool = False) -> list[Turn]:
        turns = [Turn("system", self.system)] if self.system else []
        for question, answers in said if whole or not self.single else []:
            turns += [Turn("user", question), Turn("assistant", answers.get(role) or next(iter(answers.values())))]
        return turns
