"""Instantiate the ``callbacks`` group; a callback gets the objects of the run that its constructor names."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from hydra.utils import instantiate

from llmft.callbacks.checkpoints import Checkpoints
from llmft.config.schema import TrainConfig
from llmft.utils.errors import UserError

EMPTY = inspect.Parameter.empty
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def build_callbacks(cfg: TrainConfig, context: Mapping[str, Any]) -> dict[str, pl.Callback]:
    """The callbacks of a run by their names in the config, in its order.

    Args:
        cfg: The run's config.
        context: Objects that a ``_partial_: true`` callback gets if its constructor has a parameter of that name. The
            ``checkpoints`` callback is added to them; a run whose config has none gets one.

    Raises:
        UserError: A constructor has a required parameter that neither the config nor the context provides.
    """
    nodes = {name: callback.node() for name, callback in cfg.callbacks.items() if callback is not None}
    context = dict(context)
    if "checkpoints" in nodes:
        context["checkpoints"] = complete("checkpoints", instantiate(nodes["checkpoints"]), context)
    else:
        context["checkpoints"] = Checkpoints(cfg.objective, "auto", run=context["run"])
    built = {
        name: context[name] if name == "checkpoints" else complete(name, instantiate(node), context)
        for name, node in nodes.items()
    }
    return {**built, "checkpoints": context["checkpoints"]}


def complete(name: str, callback: Any, context: Mapping[str, Any]) -> pl.Callback:
    """Call a ``functools.partial`` with the objects of the context that its signature names; return other callbacks unchanged.

    Raises:
        UserError: A required parameter is not in the context.
    """
    if not isinstance(callback, functools.partial):
        return callback
    parameters = [p for p in inspect.signature(callback).parameters.values() if p.kind in NAMED]
    open_ = [p for p in parameters if p.name not in callback.keywords]
    if missing := [p.name for p in open_ if p.default is EMPTY and p.name not in context]:
        raise UserError(
            f"callbacks.{name}: its constructor requires {', '.join(missing)}; set callbacks.{name}.{missing[0]}, or take"
            f" one of the names that a training provides: {', '.join(sorted(context))}"
        )
    return callback(**{p.name: context[p.name] for p in open_ if p.name in context})
