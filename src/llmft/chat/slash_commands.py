"""Lines that begin with a slash -> what they do to a conversation."""

import json
from typing import Any

import yaml

from llmft.chat.session import ChatSession
from llmft.config.schema import RULES
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import did_you_mean, json_line

HELP = """\
/reset              forget what was said
/system [TEXT]      show or set the system line; /system - removes it
/params [KEY=VALUE] show or set generation settings: /params temperature=0.7 max_new_tokens=50
/compare            the base model's answer beside, or no longer
/save FILE          append the conversation to a .jsonl file, as a row that data=academic reads
/help               this
/quit               leave
A line that ends in \\ goes on in the next; three quotes (\"\"\") alone on a line begin and end a longer message.
"""


class SlashCommands:
    """The commands of a conversation."""

    def __init__(self, talk: ChatSession) -> None:
        self.talk, self.conversation = talk, talk.conversation

    def run(self, line: str) -> bool:
        """Do what a line says; whether the conversation goes on."""
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
            self.talk.say(f"{error}\n")
        return True

    def help(self, _: str) -> None:
        """What there is."""
        self.talk.say(HELP)

    def reset(self, _: str) -> None:
        """Forget."""
        self.conversation.said.clear()
        self.talk.say("forgotten\n")

    def system(self, text: str) -> None:
        """Show or set the system line."""
        if text:
            self.conversation.system = None if text == "-" else text
        self.talk.say(f"system: {self.conversation.system or 'none'}\n")

    def params(self, text: str) -> None:
        """Show or set generation settings."""
        if text:
            self.talk.settings(changes(text))
        given = next(iter(self.talk.generators.values())).given
        self.talk.say("".join(f"{name}: {json.dumps(value)}\n" for name, value in given.items() if name not in BATCHES))

    def compare(self, _: str) -> None:
        """The base model too, or no longer."""
        self.talk.compare()
        self.talk.say(f"the base model is {'asked too' if self.talk.comparing else 'not asked any more'}\n")

    def save(self, path: str) -> None:
        """Append the conversation to a file."""
        if not path or not self.conversation.said:
            raise UserError("/save: pass a file" if not path else "/save: nothing was said yet")
        row = json_line({"messages": self.conversation.messages("tuned")})
        try:
            with user_path(path).open("a", encoding="utf-8") as file:
                file.write(row + "\n")
        except (OSError, ValueError) as error:
            raise UserError(f"/save {path}: {getattr(error, 'strerror', None) or error}") from None
        self.talk.say(f"saved {len(self.conversation.said)} questions: {path}\n")


BATCHES = ("batch_size", "batch_tokens", "samples")


def changes(text: str) -> dict[str, Any]:
    """``temperature=0.7 top_p=0.9`` as settings; a temperature turns drawing on, and 0 off.

    Raises:
        UserError: A part is no KEY=VALUE, or its value is none that the key takes.
    """
    found: dict[str, Any] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        name = key.removeprefix("generation.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[name] = value
        rule = RULES.get(f"generation.{name}")
        off = name == "temperature" and found[name] == 0
        if not equals or name in BATCHES or not (off or rule is None or rule.holds(found[name])):
            words = rule.words if equals and rule and name not in BATCHES else "KEY=VALUE of a generation setting"
            raise UserError(f"/params {part}: must be {words}")
    if "temperature" in found or "top_p" in found:
        found.setdefault("do_sample", found.get("temperature") != 0)
        if found["do_sample"]:
            found.setdefault("num_beams", 1)
    if found.get("temperature") == 0:
        found |= {"temperature": None, "top_p": None, "do_sample": False}
    return found
