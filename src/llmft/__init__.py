"""llmft: fine-tune a seq2seq or causal language model with one line of config.

``from llmft import load_run, train``: what they need (torch, transformers) is imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmft.utils import telemetry

if TYPE_CHECKING:
    from llmft.api import Run, build, load_run, train
    from llmft.utils.errors import Halted, UserError

    __version__: str

telemetry.off()
__all__ = ["Halted", "Run", "UserError", "__version__", "build", "load_run", "train"]
HOME = {
    "Run": "api",
    "build": "api",
    "load_run": "api",
    "train": "api",
    "Halted": "utils.errors",
    "UserError": "utils.errors",
}


def __getattr__(name: str) -> Any:
    """The names of the Python API, imported at their first use."""
    if name == "__version__":
        from importlib.metadata import version  # start-up time: 20 ms that completion does not need

        return version("llmft")
    if name not in HOME:
        raise AttributeError(f"module 'llmft' has no attribute {name!r}")
    return getattr(import_module(f"llmft.{HOME[name]}"), name)
