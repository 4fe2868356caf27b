"""A chat session in the terminal."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmft.chat.history import Conversation
from llmft.config.schema import ChatConfig
from llmft.generation.generator import Generator
from llmft.generation.load import load_base
from llmft.generation.prefix_cache import PrefixCache
from llmft.generation.stream import Stream
from llmft.models.backbone.load import max_positions
from llmft.utils.errors import UserError
from llmft.utils.signals import graceful
from llmft.utils.text import printable

TUNED, BASE = "tuned", "base"


class ChatSession:
    """A conversation and the models that answer in it.

    Args:
        cfg: The config of ``chat``.
        tuned: The model of the run.
        system: The system prompt, or None.

    Raises:
        UserError: The generation settings are not supported by ``chat``.
    """

    def __init__(self, cfg: ChatConfig, tuned: Generator, system: str | None) -> None:
        self.cfg, self.generators, self.comparing = cfg, {TUNED: tuned}, False
        tuned.stream_decoder()  # reports unsupported settings now, not at the first answer
        self.prefixes = PrefixCache(cfg.chat.prefix_cache_mib, "cpu")
        single_turn = tuned.model.config.is_encoder_decoder
        self.conversation = Conversation(tuned.codec, self.max_prompt_tokens(tuned), single_turn, system)

    def max_prompt_tokens(self, generator: Generator) -> int:
        """The token budget of a prompt: ``chat.max_prompt_tokens``, or what the answer leaves of the model's positions.

        Raises:
            UserError: The answer alone takes all positions.
        """
        limit, positions = self.cfg.chat.max_prompt_tokens, max_positions(generator.model.config)
        if positions is None:
            return limit
        answer = generator.settings.get("max_new_tokens", 1)
        if generator.model.config.is_encoder_decoder:  # the answer has positions of its own
            return min(limit, positions)
        if positions <= answer:
            raise UserError(f"generation.max_new_tokens={answer}: the model has {positions} positions; lower it")
        return min(limit, positions - answer)

    def write(self, text: str) -> None:
        """Print at once, with control characters replaced."""
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    def toggle_compare(self) -> None:
        """Show the base model's answers too, or stop showing them.

        Raises:
            UserError: There is no base model.
        """
        if BASE not in self.generators:
            self.generators[BASE] = load_base(self.cfg, self.generators[TUNED])
        self.comparing = not self.comparing

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Change generation settings of all models.

        Raises:
            UserError: They are invalid or not supported.
        """
        changed = {role: generator.with_settings(**changes) for role, generator in self.generators.items()}
        changed[TUNED].stream_decoder()
        self.conversation.max_prompt_tokens = self.max_prompt_tokens(changed[TUNED])
        self.generators = changed

    def respond(self, question: str) -> None:
        """Answer a question and add it to the conversation, unless the answer is empty."""
        answers: dict[str, str] = {}
        for role in (TUNED, BASE) if self.comparing else (TUNED,):
            if self.comparing:
                self.write(f"{role}> ")
            try:
                answers[role], stopped = self._generate(question, role)
            except UserError as error:
                self.write(f"no answer: {error}\n")
                return
            if stopped:
                break
        if answers[TUNED]:
            self.conversation.exchanges.append((question, answers))

    def _generate(self, question: str, role: str) -> tuple[str, bool]:
        """The answer, and whether the user stopped it."""
        generator, prompt = self.generators[role], self.conversation.prompt(question, role)
        if prompt.dropped:
            turns = "turn" if prompt.dropped == 1 else "turns"
            limit = self.conversation.max_prompt_tokens
            self.write(f"[{prompt.dropped} oldest {turns} dropped: the prompt is limited to {limit} tokens]\n")
        decoder = generator.stream_decoder()
        decoder.remember(self.prefixes)
        stream = decoder.stream(prompt.ids, seed=generator.seed, emit=self.write)
        with _stoppable(stream):
            decoder.run([stream])
        note = {"cancelled": " [stopped]", "length": f" [cut at {len(stream.ids)} tokens]"}
        self.write(f"{note.get(stream.reason or '', '')}\n")
        return stream.text, stream.reason == "cancelled"


@contextmanager
def _stoppable(stream: Stream) -> Iterator[None]:
    """Ctrl-C stops the answer at its next token; a second Ctrl-C raises KeyboardInterrupt."""

    def stop() -> None:
        stream.cancelled = True

    with graceful(stop, signal.SIGINT):
        yield
