"""``chat``: a conversation in the terminal with a run or a plain model."""

from typing import Any

from omegaconf import DictConfig

from llmft.chat.input import messages
from llmft.chat.session import ChatSession
from llmft.chat.slash_commands import SlashCommands
from llmft.config.schema import ChatConfig
from llmft.config.validate import check
from llmft.generation.load import load_streaming
from llmft.utils.errors import INTERRUPTED
from llmft.utils.logging import log_to, quiet
from llmft.utils.signals import on_terminate


def main(cfg: DictConfig) -> None:
    """Answer messages until the end of the input."""
    quiet()
    log_to(None)
    config = check(cfg, ChatConfig)
    on_terminate(_exit)
    tuned, system = load_streaming(config)
    session = ChatSession(config, tuned, config.system or system)
    if config.chat.compare:
        session.toggle_compare()
    name = config.run or config.model.name
    session.write(f"{name}: /help lists the commands, Ctrl-C stops an answer, /quit or Ctrl-D leaves\n")
    if session.conversation.single_turn:
        session.write("this model was trained on single questions: each is answered without the earlier turns\n")
    commands = SlashCommands(session)
    for message in messages("\nyou> ", session.write):
        if message.startswith("/"):
            if not commands.run(message):
                return
        else:
            session.respond(message)


def _exit(*_: Any) -> None:
    """Exit at SIGTERM."""
    raise SystemExit(INTERRUPTED)
