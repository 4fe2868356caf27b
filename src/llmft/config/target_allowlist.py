"""Allowlist of what a config may execute: ``_target_`` classes, OmegaConf resolvers, and parts of Hydra's own config."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.redact import SECRET
from llmft.config.tree import walk
from llmft.config.typed_overrides import list_of, typed_overrides
from llmft.utils.shell import argument
from llmft.utils.text import did_you_mean, first_line

MODEL_KEYS = ("model", "judge.model")  # their keys are not arguments of the class
REMOTE_CODE = "trust_remote_code"
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
# Modules that may provide the classes of each config section. A whole package would let a config call everything that its
# modules import, and all functions that read, write or download.
CLASSES = {
    "data": ("llmft.data.",),
    "model": ("llmft.models.causal.", "llmft.models.seq2seq."),
    "judge": ("llmft.models.causal.", "llmft.models.seq2seq."),
    "optim": ("torch.optim.", "llmft.models.optimizer."),
    "scheduler": ("llmft.models.schedule.",),
    "callbacks": ("llmft.callbacks.", "lightning.pytorch.callbacks."),
    "logger": ("lightning.pytorch.loggers.",),
    "trainer": tuple(f"lightning.pytorch.{name}." for name in ("trainer", "profilers", "plugins", "strategies")),
    "safety": ("llmft.serving.safety.",),
    "hydra.callbacks": ("llmft.sweep.results.", "llmft.sweep.comparison."),
    "hydra.launcher": PLUGINS,
    "hydra.sweeper": PLUGINS,
}
RESOLVERS = ("now", "hydra", "oc.select")
# Keys that may read the environment: paths and secrets. Elsewhere a value from the environment would end up in a file.
ENVIRONMENT = re.compile(r"(^|_)(path|dir|run|runs|resume|input|output|to|archive|cache|adapter|folder|uri)$")
OURS = ("", "llmft", "torch", "lightning", "hydra")


def allowed_targets(overrides: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names in ``allow_targets`` on the command line; a config file cannot grant itself permission.

    Args:
        overrides: Command-line overrides; None for those of the running Hydra job.
    """
    overrides = typed_overrides() if overrides is None else overrides
    code = [REMOTE_CODE] if any(text.lower().endswith(f"model.{REMOTE_CODE}=true") for text in overrides) else []
    return (*code, *list_of("allow_targets", overrides))


def code_faults(cfg: DictConfig, allow: Sequence[str]) -> Iterator[str]:
    """``trust_remote_code=true`` that comes from a file instead of the command line."""
    for model in MODEL_KEYS:
        node: Any = cfg
        for part in model.split("."):
            node = node.get(part) if isinstance(node, DictConfig) else None
        if isinstance(node, DictConfig) and node.get(REMOTE_CODE) and REMOTE_CODE not in allow:
            yield (
                f"{model}.{REMOTE_CODE}=true: set in a config file; it runs code that comes with the model, so pass it on the "
                f"command line, or {argument('allow_targets', [REMOTE_CODE])} if this command has no such key"
            )


def target_faults(cfg: DictConfig, allow: Sequence[str], *, models: bool = True) -> Iterator[str]:
    """Targets that are not allowed in their section, do not exist, or do not take the given arguments.

    Args:
        cfg: A composed config.
        allow: Additional packages that it may name.
        models: Whether to import model classes, which takes seconds; their module is checked in any case.
    """
    for path, node in walk(OmegaConf.to_container(cfg, resolve=False)):
        if not (isinstance(node, dict) and "_target_" in node):
            continue
        parameters: Any = None
        try:
            parameters = _parameters(path, str(node["_target_"]), allow, look=models or path not in MODEL_KEYS)
        except (PermissionError, ImportError) as error:
            yield f"{path}._target_={node['_target_']}: {error}"
            continue
        any_keyword = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        is_data = path == "data" or path.startswith("data.sets.")
        if is_data and "config" not in parameters:
            yield f"{path}._target_={node['_target_']}: must take the data config as its argument `config` (CONTRIBUTING.md)"
            continue
        known = {*parameters, *(_data_keys() if is_data else ())}
        for key in node if not any_keyword and path not in MODEL_KEYS else ():
            # unknown keys of our own data sets are faults of the schema
            if not (
                str(key).startswith("_") or key in known or (is_data and str(node["_target_"]).startswith("llmft."))
            ):
                yield f"{path}.{key}: {node['_target_']} has no such argument.{did_you_mean(str(key), parameters)}"


def _data_keys() -> Iterator[str]:
    """The keys of every data set, which its class need not name."""
    from llmft.config.schema.data import Data  # pydantic, which --cfg does not need

    yield from Data.model_fields


def resolver_faults(cfg: DictConfig, allow: Sequence[str]) -> Iterator[str]:
    """Interpolations that call a resolver which is not allowed, or read the environment outside of paths and secrets."""
    for key, text in walk(OmegaConf.to_container(cfg, resolve=False)):
        name = key.rpartition(".")[2].partition("[")[0]
        for resolver in _resolvers(text) if isinstance(text, str) and "${" in text else ():
            if resolver in (*RESOLVERS, *allow):
                continue
            if resolver != "oc.env":
                yield f"{key}={text}: ${{{resolver}:...}} is not allowed; use one of {', '.join(RESOLVERS)}, oc.env"
            elif not (ENVIRONMENT.search(name) or SECRET.search(name)):
                yield (
                    f"{key}={text}: only paths and secrets may come from the environment, so that none of its values is "
                    "written to a file; pass the value itself, or 'allow_targets=[oc.env]'"
                )


def _parameters(path: str, target: str, allow: Sequence[str], *, look: bool) -> Any:
    """The parameters of a target's signature; empty if ``look`` is false.

    Raises:
        PermissionError: The target is not allowed in this section.
        ImportError: It cannot be imported.
    """
    from hydra.utils import get_object

    section = [CLASSES[name] for name in CLASSES if f"{path}.".startswith(f"{name}.")]
    modules = (*(section[0] if section else ()), *(f"{package}." for package in allow))
    prefixes = (*modules, "lightning.pytorch.Trainer") if path == "trainer" else modules
    if not target.startswith(prefixes):
        raise PermissionError(_refusal(modules, target))
    if not look:
        return {}
    try:
        found = get_object(target)
        parameters = inspect.signature(found).parameters
    except Exception as error:  # importing a module runs its code, which can raise anything
        raise ImportError(f"cannot be imported ({first_line(error)})") from None
    home = f"{getattr(found, '__module__', '')}."
    if not home.startswith(modules) or not (inspect.isclass(found) or inspect.isfunction(found)):
        raise PermissionError(
            f"not allowed; it is {home}{getattr(found, '__qualname__', '?')}, not a class of {modules[0]}"
        )
    return parameters


def _refusal(modules: Sequence[str], target: str) -> str:
    root = target.partition(".")[0]
    builtin = root in (*sys.stdlib_module_names, *OURS)
    hint = "" if builtin else f"; if you trust it, pass {argument('allow_targets', [root])} on the command line"
    return f"not allowed; classes here must come from {', '.join(modules) or 'no module'}{hint}"


def _resolvers(text: str) -> Iterator[str]:
    """Names of all resolvers in an interpolation, parsed with OmegaConf's grammar."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
    from omegaconf.grammar_parser import parse

    def names(node: Any) -> Iterator[str]:
        if isinstance(node, OmegaConfGrammarParser.ResolverNameContext):
            yield node.getText()
        for child in getattr(node, "children", None) or ():
            yield from names(child)

    try:
        parsed = parse(text)
    except GrammarParseError:  # then it cannot be resolved either
        return
    yield from names(parsed)
