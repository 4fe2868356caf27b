"""What a config may make run: classes by name, resolvers of values, and parts of Hydra's own."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.utils.text import did_you_mean, first_line

MODELS = ("model", "judge.model")  # their keys are read, not passed to the class
CODE = "trust_remote_code"
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
# Where the classes of each part of a config come from. A package as a whole would let a config call all that its modules
# import, and whatever of its functions reads, writes or fetches.
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
# The environment may say where things are, and what a key named as a secret holds; nowhere else is its value taken.
ENVIRONMENT = re.compile(r"(^|_)(path|dir|run|runs|resume|input|output|to|archive|cache|adapter|folder|uri)$")
OURS = ("", "llmft", "torch", "lightning", "hydra")
# What a launcher runs besides the job, or sets for it: said on the command line, not in a file.
COMMANDS = ("launcher.setup", "launcher.python", "launcher.srun_args", "launcher.additional_parameters", "job.env_set")
# What ``logging.config.dictConfig`` would call or import.
FORMATTER_CLASSES = ("logging.Formatter", "colorlog.ColoredFormatter")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
HANDLER_CLASSES = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")


def allowed(overrides: Sequence[str] | None = None) -> tuple[str, ...]:
    """What ``allow_targets`` names on the command line; what a file allows itself is no permission.

    Args:
        overrides: Of the command line; None for those that Hydra has started with.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if overrides is None:
        overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    given = [text for text in overrides if text.lstrip("+").partition("=")[0] == "allow_targets"]
    value = OverridesParser.create().parse_override(given[-1]).value() if given else []
    code = [CODE] if any(text.lower().endswith(f"model.{CODE}=true") for text in overrides) else []
    return (*code, *(str(name) for name in value)) if isinstance(value, list) else ()


def code_faults(cfg: DictConfig, allow: Sequence[str]) -> Iterator[str]:
    """Models that a file, and not the user, lets run code of their own."""
    for model in MODELS:
        if OmegaConf.select(cfg, f"{model}.{CODE}") and CODE not in allow:
            yield (
                f"{model}.{CODE}=true: stands in a file; it runs code that comes with the model, so say it on the command "
                f"line, as allow_targets=[{CODE}] if this command has no such key"
            )


def target_faults(cfg: DictConfig, allow: Sequence[str], *, models: bool = True) -> Iterator[str]:
    """Classes that may not be named there, are not there, or do not take these arguments.

    Args:
        cfg: Composed.
        allow: Packages that it may name besides.
        models: Whether to import the class of a model, which takes seconds; where it is, is asked in any case.
    """
    for path, node in _targets(OmegaConf.to_container(cfg, resolve=False), ""):
        parameters: Any = None
        try:
            parameters = _parameters(path, str(node["_target_"]), allow, look=models or path not in MODELS)
        except (PermissionError, ImportError) as error:
            yield f"{path}._target_={node['_target_']}: {error}"
            continue
        free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        for key in node:
            if not (free or str(key).startswith("_") or key in parameters or path in MODELS):
                yield f"{path}.{key}: {node['_target_']} has no such argument.{did_you_mean(str(key), parameters)}"


def resolver_faults(cfg: DictConfig, allow: Sequence[str]) -> Iterator[str]:
    """Interpolations that would call something else than the named resolvers, or read the environment into a text."""
    from llmft.config.redact import SECRET

    for key, text in _texts(OmegaConf.to_container(cfg, resolve=False), ""):
        name = key.rpartition(".")[2].partition("[")[0]
        for resolver in _resolvers(text):
            if resolver in (*RESOLVERS, *allow):
                continue
            if resolver != "oc.env":
                yield f"{key}={text}: ${{{resolver}:...}} is not allowed; there are {', '.join(RESOLVERS)} and oc.env"
            elif not (ENVIRONMENT.search(name) or SECRET.search(name)):
                yield (
                    f"{key}={text}: the environment may only say where something is, so that none of its values lands in a "
                    "file; pass the value itself, or allow_targets=[oc.env]"
                )


def hydra_faults(hydra: DictConfig, overrides: Sequence[str]) -> Iterator[str]:
    """What of Hydra's own config would call something: it does so before any job, so this is asked before it starts.

    Args:
        hydra: The composed ``hydra`` node.
        overrides: Of the command line.
    """
    yield from target_faults(OmegaConf.create({"hydra": hydra}), allowed(overrides))
    for part in ("job_logging", "hydra_logging"):
        yield from _logging_faults(OmegaConf.to_container(hydra[part], resolve=False), f"hydra.{part}")
    for key in COMMANDS:
        said = any(text.lstrip("+~").startswith(f"hydra.{key}") for text in overrides)
        if OmegaConf.select(hydra, key) and not said:
            yield f"hydra.{key}: stands in a file and would be run or set; say it on the command line if you mean it"


def _parameters(path: str, target: str, allow: Sequence[str], *, look: bool) -> Any:
    """The arguments of a class or function that may be named there.

    Raises:
        PermissionError: It may not.
        ImportError: There is none.
    """
    from hydra.utils import get_object

    near = [CLASSES[place] for place in CLASSES if f"{path}.".startswith(f"{place}.")]
    places = (*(near[0] if near else ()), *(f"{package}." for package in allow))
    wanted = (*places, "lightning.pytorch.Trainer") if path == "trainer" else places
    if not target.startswith(wanted):
        raise PermissionError(_refusal(places, target))
    if not look:
        return {}
    try:
        found = get_object(target)
        parameters = inspect.signature(found).parameters
    except Exception as error:  # an import can fail in any way
        raise ImportError(f"cannot be imported ({first_line(error)})") from None
    home = f"{getattr(found, '__module__', '')}."
    if not home.startswith(places) or not (inspect.isclass(found) or inspect.isfunction(found)):
        raise PermissionError(
            f"not allowed; it is {home}{getattr(found, '__qualname__', '?')}, no class of {places[0]}"
        )
    return parameters


def _refusal(places: Sequence[str], target: str) -> str:
    root = target.partition(".")[0]
    ours = root in (*sys.stdlib_module_names, *OURS)
    way_out = "" if ours else f"; if you trust it, say so on the command line (allow_targets=[{root}])"
    return f"not allowed; classes come from {', '.join(places) or 'nowhere here'}{way_out}"


def _targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict) and "_target_" in node:
        yield path, node
    for key, child in _children(node, path):
        yield from _targets(child, key)


def _texts(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, str) and "${" in node:
        yield path, node
    for key, child in _children(node, path):
        yield from _texts(child, key)


def _children(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from ((f"{path}.{key}" if path else str(key), child) for key, child in node.items())
    elif isinstance(node, list):
        yield from ((f"{path}[{number}]", child) for number, child in enumerate(node))


def _resolvers(text: str) -> Iterator[str]:
    """The names of all resolvers in a text, by OmegaConf's own grammar."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
    from omegaconf.grammar_parser import parse

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, OmegaConfGrammarParser.ResolverNameContext):
            yield node.getText()
        for child in getattr(node, "children", None) or ():
            yield from walk(child)

    try:
        tree = parse(text)
    except GrammarParseError:  # it cannot be resolved either
        return
    yield from walk(tree)


def _logging_faults(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key in node.keys() & {"()", "."}:
            yield f"{path}.{key}: would be called; a file may only name {', '.join(HANDLER_CLASSES)}"
        kind = node.get("class")
        if kind is not None and kind not in (*HANDLER_CLASSES, *FORMATTER_CLASSES):
            yield f"{path}.class={kind}: not allowed; there are {', '.join((*HANDLER_CLASSES, *FORMATTER_CLASSES))}"
    if isinstance(node, str) and re.match(r"\s*(ext|cfg)://", node) and node not in STREAMS:
        yield f"{path}={node}: would be imported; there are {', '.join(STREAMS)}"
    for key, child in _children(node, path):
        yield from _logging_faults(child, key)
