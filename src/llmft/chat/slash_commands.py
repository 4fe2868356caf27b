"""Slash commands of a chat session."""

import json
from typing import Any

import yaml

from llmft.chat.session import TUNED, ChatSession
from llmft.config.schema.generation import Generation
from llmft.config.schema.section import accepts, must
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import did_you_mean, json_line

HELP = """\
/reset              clear the conversation
/system [TEXT]      show or set the system prompt; /system - removes it
/params [KEY=VALUE] show or set generation settings: /params temperature=0.7 max_new_tokens=50
/compare            also show the base model's answer, or stop showing it
/save FILE          append the conversation to a .jsonl file, as a row that data=academic reads
/help               show this list
/quit               leave
A line that ends in \\ continues on the next line; three quotes (\"\"\") on a line of their own begin and end a longer message.
"""
# Generation settings that do not apply to a conversation.
BATCH_KEYS = ("batch_size", "batch_tokens", "samples", "dtype")


class SlashCommands:
    """The slash commands of a session."""

    def __init__(self, session: ChatSession) -> None:
        self.session, self.conversation = session, session.conversation

    def run(self, line: str) -> bool:
        """Run a command line such as ``/system Be brief.``; whether the session continues."""
        name, _, rest = line[1:].partition(" ")
        commands = {
            "help": self.help,
            "reset": self.reset,
            "system": self.system,
            "params": self.params,
            "compare": self.compare,
            "save": self.save,
        }
        if name in ("quit", "exit"):
            return False
        try:
            if name not in commands:
                raise UserError(f"/{name}: no such command.{did_you_mean(name, [*commands, 'quit'])} /help lists them")
            commands[name](rest.strip())
        except UserError as error:
            self.session.write(f"{error}\n")
        return True

    def help(self, _: str) -> None:
        """List the commands."""
        self.session.write(HELP)

    def reset(self, _: str) -> None:
        """Clear the conversation."""
        self.conversation.exchanges.clear()
        self.session.write("conversation cleared\n")

    def system(self, text: str) -> None:
        """Show or set the system prompt."""
        if text:
            self.conversation.system = None if text == "-" else text
        self.session.write(f"system: {self.conversation.system or 'none'}\n")

    def params(self, text: str) -> None:
        """Show or set generation settings."""
        if text:
            self.session.change_settings(changes(text))
        given = self.session.generators[TUNED].given
        shown = {name: value for name, value in given.items() if name not in BATCH_KEYS}
        self.session.write("".join(f"{name}: {json.dumps(value)}\n" for name, value in shown.items()))

    def compare(self, _: str) -> None:
        """Show the base model's answers too, or stop showing them."""
        self.session.toggle_compare()
        self.session.write(f"base model: {'on' if self.session.comparing else 'off'}\n")

    def save(self, path: str) -> None:
        """Append the conversation to a file."""
        if not path or not self.conversation.exchanges:
            raise UserError("/save: pass a file" if not path else "/save: the conversation is empty")
        row = json_line({"messages": self.conversation.messages(TUNED)})
        try:
            with user_path(path).open("a", encoding="utf-8") as file:
                file.write(row + "\n")
        except (OSError, ValueError) as error:
            raise UserError(f"/save {path}: {getattr(error, 'strerror', None) or error}") from None
        count = len(self.conversation.exchanges)
        self.session.write(f"saved {count} {'question' if count == 1 else 'questions'}: {path}\n")


def changes(text: str) -> dict[str, Any]:
    """Parse ``temperature=0.7 top_p=0.9`` into settings; a temperature turns sampling on, and 0 off.

    Raises:
        UserError: A part is not KEY=VALUE, or the key does not take that value.
    """
    found: dict[str, Any] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        name = key.removeprefix("generation.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[name] = value
        field = Generation.model_fields.get(name)
        off = name == "temperature" and found[name] == 0
        if not equals or name in BATCH_KEYS:
            raise UserError(f"/params {part}: must be KEY=VALUE of a generation setting")
        if field and not off and not accepts(field, found[name]):
            raise UserError(f"/params {part}: must be {must(field)}")
    if "temperature" in found or "top_p" in found:
        found.setdefault("do_sample", found.get("temperature") != 0)
        if found["do_sample"]:
            found.setdefault("num_beams", 1)
    if found.get("temperature") == 0:
        found |= {"temperature": None, "top_p": None, "do_sample": False}
    return found
