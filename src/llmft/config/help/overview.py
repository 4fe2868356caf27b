"""``llmft --help``: what llmft does, examples, and its commands."""

from collections.abc import Iterable

from llmft.config.help.catalog import Catalog, first_sentence
from llmft.config.help.layout import two_columns

OVERVIEW = """\
Fine-tune a language model on instruction data; evaluate, serve and export it.

usage: llmft [COMMAND] [group=option ...] [key=value ...]    or python -m llmft

  llmft model=smollm2_135m data=academic peft=lora
  llmft answer run=outputs/RUN question="What is label masking?"
  llmft -m model=gpt2,flan_t5_small peft=none,lora    (every combination)

commands:
{commands}

more:
  llmft COMMAND --help    groups and keys of a command, with their defaults
  llmft help=GROUP        options and keys of a group, such as model or data
  llmft --cfg job         the config; --config-dir=DIR adds YAML files of yours
  llmft completion SHELL  a completion script for bash, zsh or fish
"""


def overview(catalog: Catalog, commands: Iterable[str]) -> str:
    """What llmft does, examples, and its commands."""
    listed = {name: first_sentence(catalog.command(name).sentence) for name in commands}
    return OVERVIEW.format(commands=two_columns(listed))
