"""llmft: fine-tune a seq2seq or causal language model with one line of config."""

from importlib.metadata import version

__version__ = version("llmft")
