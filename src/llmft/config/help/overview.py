"""``llmft --help``: what llmft does, examples, and its commands, on one screen."""

from collections.abc import Iterable

from llmft.config.help.catalog import Catalog, first_sentence
from llmft.config.help.layout import two_columns

OVERVIEW = """\
Fine-tune a language model on instruction data; evaluate, serve and export it.
  llmft data.path=FILE                         fine-tune on rows of yours
  llmft answer run=latest question="..."       ask the newest run in outputs/
  llmft -m optim.lr=1e-4,1e-3 peft=lora,none   a sweep: every combination

usage: llmft [COMMAND] [group=option ...] [key=value ...]  or python -m llmft
{commands}

llmft COMMAND --help: examples, keys, groups; llmft help=GROUP: its options
--cfg job prints the config; llmft completion bash|zsh|fish: Tab completes
"""


def overview(catalog: Catalog, commands: Iterable[str]) -> str:
    """What llmft does, examples, and its commands."""
    listed = {name: first_sentence(catalog.command(name).sentence) for name in commands}
    return OVERVIEW.format(commands=two_columns(listed))
