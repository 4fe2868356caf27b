"""A chat session in the terminal."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from llmft.chat.history import Conversation
from llmft.generation.generator import Generator
from llmft.generation.load import load_base
from llmft.generation.stream import Stream
from llmft.models.backbone.load import max_positions
from llmft.utils.errors import UserError
from llmft.utils.text import printable

TUNED, BASE = "tuned", "base"


class ChatSession:
    """The conversation and who takes part in it."""

    def __init__(self, cfg: DictConfig, tuned: Generator, system: str | None) -> None:
        self.cfg, self.generators, self.comparing = cfg, {TUNED: tuned}, False
        tuned.stream_decoder()  # reports settings that chat does not support
        self.conversation = Conversation(tuned.codec, self.room(tuned), tuned.model.config.is_encoder_decoder, system)

    def room(self, generator: Generator) -> int:
        """The most tokens of a prompt.

        Raises:
            UserError: The answer alone takes all positions of the model.
        """
        most, positions = generator.settings.get("max_new_tokens", 1), max_positions(generator.model.config)
        room = (
            self.cfg.chat.max_prompt_tokens
            if positions is None
            else min(self.cfg.chat.max_prompt_tokens, positions - most)
        )
        if room < 1:
            raise UserError(f"generation.max_new_tokens={most}: the model has {positions} positions; lower it")
        return room

    def say(self, text: str) -> None:
        """To the terminal, at once; nothing in it can steer the terminal."""
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    def compare(self) -> None:
        """Ask the base model too, or no longer.

        Raises:
            UserError: There is none.
        """
        if BASE not in self.generators:
            self.generators[BASE] = load_base(self.cfg, self.generators[TUNED])
        self.comparing = not self.comparing

    def settings(self, changes: dict[str, Any]) -> None:
        """Change generation settings, of all models.

        Raises:
            UserError: They cannot be.
        """
        changed = {role: generator.with_settings(**changes) for role, generator in self.generators.items()}
        changed[TUNED].stream_decoder()
        self.conversation.room = self.room(changed[TUNED])
        self.generators = changed

    def ask(self, question: str) -> None:
        """Ask, and remember what was said; without a word of an answer it is as if it had not been asked."""
        answers: dict[str, str] = {}
        for role in (TUNED, BASE) if self.comparing else (TUNED,):
            if self.comparing:
                self.say(f"{role}> ")
            try:
                answers[role], stopped = self._answer(question, role)
            except UserError as error:
                self.say(f"not asked: {error}\n")
                return
            if stopped:
                break
        if answers[TUNED]:
            self.conversation.said.append((question, answers))

    def _answer(self, question: str, role: str) -> tuple[str, bool]:
        """The answer, and whether the user stopped it."""
        generator, asked = self.generators[role], self.conversation.ask(question, role)
        if asked.left_out:
            turns = "turn" if asked.left_out == 1 else "turns"
            self.say(
                f"[{asked.left_out} oldest {turns} left out: the prompt has room for {self.conversation.room} tokens]\n"
            )
        decoder = generator.stream_decoder()
        stream = decoder.stream(asked.ids, seed=generator.seed, emit=self.say)
        with _stoppable(stream):
            decoder.run([stream])
        note = {"cancelled": " [stopped]", "length": f" [cut at {len(stream.ids)} tokens]"}
        self.say(f"{note.get(stream.reason or '', '')}\n")
        return stream.text, stream.reason == "cancelled"


@contextmanager
def _stoppable(stream: Stream) -> Iterator[None]:
    """Ctrl-C stops the answer at its next token; a second one is a KeyboardInterrupt as ever."""

    def stop(*_: Any) -> None:
        if stream.cancelled:
            raise KeyboardInterrupt
        stream.cancelled = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
