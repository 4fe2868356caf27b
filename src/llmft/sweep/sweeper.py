"""``multirun.yaml``, which Hydra's sweeper writes into the folder of a sweep: without secrets."""

import copy
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf, open_dict

from llmft.config.redact import REDACTED, SECRET, redact_argument
from llmft.config.tree import walk


def keep_secrets_out() -> None:
    """Let Hydra's sweeper write its config redacted; its jobs are composed from the command line, as before."""
    sweep = BasicSweeper.sweep
    if getattr(sweep, "is_redacted", False):
        return

    def redacted(self: BasicSweeper, arguments: list[str]) -> Any:
        self.config = without_secrets(self.config)
        return sweep(self, arguments)

    redacted.is_redacted = True  # pyright: ignore[reportFunctionMemberAccess]
    BasicSweeper.sweep = redacted


def without_secrets(config: Any) -> Any:
    """A copy of a sweep's config in which secrets of the command line are masked; interpolations stay."""
    config = copy.deepcopy(config)
    OmegaConf.set_readonly(config.hydra, False)
    raw: Any = OmegaConf.to_container(config, resolve=False)
    with open_dict(config):
        for key, value in walk(raw):
            if SECRET.search(key.rpartition(".")[2]) and isinstance(value, str) and "${" not in value:
                OmegaConf.update(config, key, REDACTED)
        typed = raw["hydra"]["overrides"]["task"]
        shown = [redact_argument(text) for text in typed]
        config.hydra.overrides.task = shown
        if shown != typed:
            config.hydra.job.override_dirname = REDACTED
    return config
