"""``chat``: a conversation in the terminal, with a run or a plain model."""

import signal
from typing import Any

from omegaconf import DictConfig

from llmft.chat.input import messages
from llmft.chat.session import ChatSession
from llmft.chat.slash_commands import SlashCommands
from llmft.config.validate import check
from llmft.generation.load import load_generator
from llmft.utils.logging import log_to, quiet


def main(cfg: DictConfig) -> None:
    """Talk until the end of the input."""
    quiet()
    log_to(None)
    check(cfg)
    signal.signal(signal.SIGTERM, _leave)
    tuned, system = load_generator(cfg)
    talk = ChatSession(cfg, tuned, cfg.system or system)
    if cfg.chat.compare:
        talk.compare()
    talk.say(f"{cfg.run or cfg.model.name}: /help lists the commands, Ctrl-C stops an answer, /quit or Ctrl-D leaves\n")
    if talk.conversation.single:
        talk.say("this model was made for single questions: each one is asked alone, without what was said before\n")
    slash = SlashCommands(talk)
    for message in messages("\nyou> ", talk.say):
        if message.startswith("/"):
            if not slash.run(message):
                return
        else:
            talk.ask(message)


def _leave(*_: Any) -> None:
    """SIGTERM ends the program, whatever it is doing."""
    raise SystemExit(130)
