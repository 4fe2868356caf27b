"""What Hydra's own config may make Hydra do before a job begins: call, import and open files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from llmft.config.target_allowlist import REMOTE_CODE, allowed_targets, resolver_faults, target_faults
from llmft.config.tree import walk
from llmft.config.typed_overrides import values_of
from llmft.config.write_paths import FOLDER, OUTPUTS, WAY_OUT, Writable, is_part
from llmft.utils.text import first_line

# Commands and environment variables of a launcher: allowed on the command line, not in a file.
LAUNCHER_KEYS = (
    "launcher.setup",
    "launcher.python",
    "launcher.srun_args",
    "launcher.additional_parameters",
    "job.env_set",
)
# What ``logging.config.dictConfig`` may instantiate or import.
FORMATTER_CLASSES = ("logging.Formatter", "colorlog.ColoredFormatter")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
HANDLER_CLASSES = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
LOGGING = ("job_logging", "hydra_logging")
# Hydra's own log file, or another one beside it.
LOG_FILE = re.compile(r"\$\{hydra[.:]runtime\.output_dir\}/(\$\{hydra[.:]job\.name\}|[\w-]+)\.log")
# The folder of a job of a sweep: plain text, the time, or the job's number.
SUBDIR = re.compile(r"(\$\{hydra[.:]job\.(num|id)\}|\$\{now:[^${}]*\}|[^${}])+")
# Keys of hydra.sweeper.params that only the command line may set.
RESERVED = re.compile(rf"^(hydra([./@].*)?|allow_targets|allow_writes|output_dir|resume|(.*\.)?{REMOTE_CODE})$")
# Interpolations that are a text in any case, and those that refer to a key.
TEXT = re.compile(r"\$\{(now|oc\.env):[^${}]*\}")
REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")
SECTIONS = ("launcher", "sweeper", "callbacks")


def hydra_faults(hydra: DictConfig, overrides: Sequence[str]) -> Iterator[str]:
    """Targets, logging classes and launcher commands in Hydra's own config that are not allowed.

    Hydra executes them before any job, so this check runs before Hydra starts.

    Args:
        hydra: The composed ``hydra`` node.
        overrides: Command-line overrides.
    """
    node = OmegaConf.create({"hydra": hydra})
    allow = allowed_targets(overrides)
    yield from target_faults(node, allow)
    own = ("hydra.overrides", "hydra.job.override_dirname")  # the command line itself, unresolved
    yield from (fault for fault in resolver_faults(node, allow) if not fault.startswith(own))
    raw: Any = OmegaConf.to_container(hydra, resolve=False)
    for part in LOGGING:
        yield from _logging_faults(raw.get(part), f"hydra.{part}")
    for section in SECTIONS:
        for path, value in walk(raw.get(section), f"hydra.{section}"):
            if not (isinstance(value, str) and value.startswith("${")):
                continue
            if _is_section(hydra, path):
                yield f"{path}={value}: stands for a whole section, whose classes would not be checked"
            elif _may_become_section(hydra, path):
                yield (
                    f"{path}={value}: could stand for a whole section when Hydra resolves it, whose classes would not be "
                    "checked; write the value itself"
                )
    for key in LAUNCHER_KEYS:
        overridden = any(text.lstrip("+~").startswith(f"hydra.{key}") for text in overrides)
        if OmegaConf.select(hydra, key) and not overridden:
            yield f"hydra.{key}: set in a config file and would be executed; pass it on the command line if you trust it"


def hydra_write_faults(composed: DictConfig, overrides: Sequence[str], *, multirun: bool) -> Iterator[str]:
    """Files and folders that Hydra would create, open or empty although a file of ``--config-dir`` names them.

    Args:
        composed: The config of a job, or the one that starts a sweep, with its ``hydra`` node.
        overrides: Command-line overrides, those of Hydra too.
        multirun: Whether this is a sweep.
    """
    raw: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    writable = Writable.by(overrides, OUTPUTS)
    yield from _mode_faults(raw, overrides)
    yield from _params_faults(raw.get("sweeper") or {}, overrides)
    for part in LOGGING:
        for path, node in walk(raw.get(part), f"hydra.{part}"):
            if isinstance(node, dict) and "filename" in node:
                yield from _log_file_faults(path, node, writable)
    folder, key = _folder_keys(raw, multirun=multirun)
    where = _text(composed, folder)
    if where is None and not any(text.partition("=")[0] in (folder, key) for text in overrides):
        yield f"{key}: must be known before a job begins ({_why_unknown(composed, folder)})"
    is_own = (
        not multirun and raw["run"]["dir"] == "." and "output_dir" not in composed
    )  # of commands without a run directory
    if where is not None and not is_own and not (writable.allows(key, where) or writable.allows("output_dir", where)):
        yield f"{key}={where}: set in a config file, and is not below {OUTPUTS}/; {WAY_OUT}"
    subdir = raw["sweep"]["subdir"]
    if not _is_typed("hydra.sweep.subdir", subdir, overrides) and not (
        SUBDIR.fullmatch(str(subdir)) and is_part(str(subdir))
    ):
        yield f"hydra.sweep.subdir={subdir}: set in a config file; use text, ${{now:...}} and ${{hydra.job.num}}"
    if where is not None:
        yield from _plugin_faults(composed, raw, Writable.by(overrides, OUTPUTS, where))


def pinned_folder(composed: DictConfig, overrides: Sequence[str], *, multirun: bool) -> list[str]:
    """The override that fixes the checked output folder, which a file could otherwise let depend on the time.

    Args:
        composed: The config of a job, or the one that starts a sweep, with its ``hydra`` node.
        overrides: Command-line overrides, those of Hydra too.
        multirun: Whether this is a sweep.
    """
    raw: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    folder, key = _folder_keys(raw, multirun=multirun)
    fixed_by = (folder, "output_dir", "resume") if key == "output_dir" else (folder,)
    given = (text.partition("=") for text in overrides)
    is_fixed = any(name in fixed_by and value != "null" and "${" not in value for name, _, value in given)
    where = _text(composed, folder)
    return [] if where is None or is_fixed else [f"{folder}={where}"]


def _folder_keys(raw: Mapping[str, Any], *, multirun: bool) -> tuple[str, str]:
    """The key of Hydra's output folder, and the key that a user sets for it."""
    if multirun:
        return "hydra.sweep.dir", "hydra.sweep.dir"
    return "hydra.run.dir", "output_dir" if raw["run"]["dir"] == "${output_dir}" else "hydra.run.dir"


def _mode_faults(raw: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Settings of Hydra that change where or how jobs write, which only the command line may change."""
    job = raw.get("job") or {}
    reasons = {
        "hydra.mode": (raw.get("mode"), "starts a sweep; -m on the command line does that"),
        "hydra.output_subdir": (raw.get("output_subdir"), "Hydra would write the config there, secrets not redacted"),
        "hydra.job.chdir": (job.get("chdir") or None, "would change the meaning of all relative paths"),
    }
    for key, (value, why) in reasons.items():
        if value is not None and not _is_typed(key, value, overrides):
            yield f"{key}={value}: set in a config file; {why}"
    name = job.get("name")
    if name and "${" not in str(name) and re.fullmatch(r"[\w.-]+", str(name)):
        return
    if name and name != "???" and not _is_typed("hydra.job.name", name, overrides):
        yield f"hydra.job.name={name}: set in a config file; must be a name of letters, digits, dots and dashes"


def _params_faults(sweeper: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    params = sweeper.get("params") or {}
    if not isinstance(params, dict):
        yield f"hydra.sweeper.params={params}: must be a mapping of keys and values"
        return
    for key in params:
        if _is_typed(f"hydra.sweeper.params.{key}", params[key], overrides):
            continue
        name = str(key).strip().lstrip("+~")
        if not re.fullmatch(r"[\w./@-]+", name) or RESERVED.match(name.partition("@")[0]):
            yield f"hydra.sweeper.params.{key}: set in a config file; {name} may only be set on the command line"


def _log_file_faults(path: str, node: Mapping[str, Any], writable: Writable) -> Iterator[str]:
    file = str(node["filename"])
    inside = LOG_FILE.fullmatch(file) or ("${" not in file and writable.holds(file))
    if not inside and not _is_typed(f"{path}.filename", file, writable.overrides):
        yield (
            f"{path}.filename={file}: set in a config file, and would be opened; use "
            f"${{hydra.runtime.output_dir}}/NAME.log, or {WAY_OUT}"
        )
    if node.get("mode", "a") != "a" and not _is_typed(f"{path}.mode", node["mode"], writable.overrides):
        yield f"{path}.mode={node['mode']}: set in a config file; a log file is only appended to (a)"


def _plugin_faults(composed: DictConfig, raw: Mapping[str, Any], writable: Writable) -> Iterator[str]:
    """Paths in the config of a launcher, a sweeper or Hydra's callbacks outside of the output folder."""
    for section in SECTIONS:
        for path, value in walk(raw.get(section), f"hydra.{section}"):
            if not isinstance(value, str) or path.startswith("hydra.sweeper.params"):
                continue
            key = re.sub(r"\[\d+\]$", "", path.rpartition(".")[2])
            text = _text(composed, path) or value
            is_path = FOLDER.search(key) or not is_part(text[:200])
            if not key.startswith("_") and is_path and not writable.allows(path, text):
                yield f"{path}={text}: set in a config file, and is outside of the sweep's folder; {WAY_OUT}"


def _is_typed(key: str, value: Any, overrides: Sequence[str]) -> bool:
    return any(str(value) in (text, given) for text, given in values_of(key, overrides))


def _text(composed: DictConfig, key: str) -> str | None:
    try:
        value = OmegaConf.select(composed, key)
    except OmegaConfBaseException:  # Hydra says so, or it is only known in a job
        return None
    return None if value is None else str(value)


def _why_unknown(composed: DictConfig, key: str) -> str:
    try:
        return str(OmegaConf.select(composed, key))
    except OmegaConfBaseException as error:
        return first_line(error)


def _is_section(hydra: DictConfig, path: str) -> bool:
    try:
        return OmegaConf.is_config(OmegaConf.select(hydra._get_root(), path))
    except OmegaConfBaseException:
        return False


def _may_become_section(hydra: DictConfig, path: str) -> bool:
    """Whether another interpolation, such as the time, decides what a value refers to, so that it can become a section later."""
    raw = dict(walk(OmegaConf.to_container(hydra._get_root(), resolve=False)))
    for _ in raw:  # reference by reference; more of them are circular
        value = raw.get(path, {})  # not there: below a section that is an interpolation itself
        if not isinstance(value, str) or not _is_one_interpolation(value):
            return isinstance(value, dict | list)
        if TEXT.fullmatch(value):
            return False
        reference = REFERENCE.fullmatch(value)
        if reference is None:
            return True
        above = path.split(".")[: -len(reference[1])] if reference[1] else []
        path = ".".join([*above, reference[2]])
    return True


def _is_one_interpolation(text: str) -> bool:
    """Whether a text is one interpolation and nothing else; together with other text it gives a text."""
    try:
        parts = parse(text).getChild(0)
    except GrammarParseError:  # then it cannot be resolved either
        return False
    if parts is None:
        return False
    return parts.getChildCount() == 1 and isinstance(parts.getChild(0), OmegaConfGrammarParser.InterpolationContext)


def _logging_faults(config: Any, section: str) -> Iterator[str]:
    for key in ("root", "handlers", "formatters", "filters", "loggers"):
        value = config.get(key) if isinstance(config, dict) else None
        if value is not None and not isinstance(value, dict):
            yield f"{section}.{key}={value}: must be a mapping"
    for path, node in walk(config, section):
        if isinstance(node, dict):
            for key in node.keys() & {"()", "."}:
                yield f"{path}.{key}: would be called; a file may only name {', '.join(HANDLER_CLASSES)}"
            kind = node.get("class")
            if kind is not None and kind not in (*HANDLER_CLASSES, *FORMATTER_CLASSES):
                yield f"{path}.class={kind}: not allowed; use one of {', '.join((*HANDLER_CLASSES, *FORMATTER_CLASSES))}"
        if isinstance(node, str) and re.match(r"\s*(ext|cfg)://", node) and node not in STREAMS:
            yield f"{path}={node}: would be imported; use one of {', '.join(STREAMS)}"
        if isinstance(node, str) and "${" in node and not path.endswith(".filename"):
            yield f"{path}={node}: not allowed; only a filename may have an interpolation here"
