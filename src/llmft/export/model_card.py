"""A run -> the model card (``README.md``) of its weights: what data, what settings, what it scored, what it is not."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.data.notice import notices
from llmft.export import license
from llmft.metrics.format import interval, number
from llmft.models.peft.trainable import is_adapter
from llmft.runs.directory import RunDirectory
from llmft.utils import files
from llmft.utils.text import in_markdown

# What a reader asks of a training, as keys of its config.
SETTINGS = (
    "peft.name", "peft.r", "peft.alpha", "peft.dropout", "peft.targets", "optim._target_", "optim.lr", "optim.weight_decay",
    "scheduler.name", "scheduler.warmup_steps", "data.batch_size", "data.batching", "trainer.accumulate_grad_batches",
    "trainer.precision", "data.max_prompt_tokens", "data.max_answer_tokens", "data.train_on", "data.train_on_turns", "seed",
)  # fmt: skip
USE = {
    "adapter": """from peft import PeftModel
from transformers import {auto}, AutoTokenizer

model = PeftModel.from_pretrained({auto}.from_pretrained({base!r}), FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)""",
    "merged": """from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)""",
}
ASK = """
messages = [{system}{{"role": "user", "content": "..."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0]{behind}, skip_special_tokens=True))"""


def of_run(run: Path, cfg: DictConfig, form: str, checked: str = "") -> str:
    """The card of a run directory: what its ``run.json`` and, where there is one, ``evaluation.json`` say by now.

    Raises:
        UserError: ``run.json`` cannot be read.
    """
    file = run / "evaluation.json"
    scores = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return card(cfg, RunDirectory.read(run), scores, form, checked)


def write(run: Path, cfg: DictConfig) -> None:
    """Write the card of ``model/``, with what is known by now: when the weights are saved, and when they have been scored."""
    form = "adapter" if is_adapter(cfg.peft) else "merged"
    files.write(run / "model" / "README.md", of_run(run, cfg, form))


def card(
    cfg: DictConfig, record: Mapping[str, Any], scores: Mapping[str, Any] | None, form: str, checked: str = ""
) -> str:
    """The card as Markdown with the front matter that the Hub reads; it names no path of this machine.

    Args:
        cfg: The run's config.
        record: What ``run.json`` holds (``data``, ``metrics``, ``versions``, ``parameters``).
        scores: The content of ``evaluation.json``, None where nothing was evaluated.
        form: ``adapter`` or ``merged``.
        checked: What was found when the folder was loaded again.
    """
    parts = [
        _head(cfg, form),
        f"# {in_markdown(f'{cfg.data.name} on {cfg.model.name}')}\n",
        f"{base_named(cfg)}, fine-tuned with llmft ({in_markdown(cfg.peft.name)}; {_form(form)}). {checked}".rstrip()
        + "\n",
        "## Use\n",
        f"```python\n{_use(cfg, form)}\n```\n",
        "The trained prompt is the tokenizer's chat template; the settings of its answers are the generation config.\n",
        "## Data\n",
        *_table(_data(record.get("data") or {})),
        "## Training\n",
        *_table(_training(cfg, record)),
        "## Scores\n",
        *(_scores(scores) if scores else _losses(record.get("metrics") or {})),
        "## Limits\n",
        *_limits(cfg, scores),
        "## Licence\n",
        _licence(cfg) + "\n",
    ]
    return "\n".join(parts)


def base_named(cfg: DictConfig) -> str:
    """The base model as others can find it: a Hub id, a package, or the name of a local folder without its path."""
    path = hub_id(cfg) or str(cfg.model.path)
    if path.startswith(("pypi:", "tiny:")) or hub_id(cfg):
        file = f", {Path(cfg.model.gguf_file).name}" if cfg.model.gguf_file else ""
        return f"`{path}`{in_markdown(file)}"
    return f"`{Path(path).name.replace('`', chr(39))}` (a local folder)"  # which would end here


def hub_id(cfg: DictConfig) -> str | None:
    """The Hub id of the base model, None where it came from elsewhere."""
    from llmft.data.sources import HUB_ID
    from llmft.utils.paths import user_path

    path = str(cfg.model.path)
    return path if HUB_ID.match(path) and not user_path(path).is_dir() and ":" not in path else None


def _form(form: str) -> str:
    return "the adapter alone" if form == "adapter" else "whole weights"


def _head(cfg: DictConfig, form: str) -> str:
    head: dict[str, Any] = {"library_name": "peft" if form == "adapter" else "transformers", "tags": ["llmft"]}
    head["pipeline_tag"] = "text-generation"
    if base := hub_id(cfg):
        head["base_model"] = base
    if known := license.of_base(cfg.model):
        head["license"] = known
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---"])


def _use(cfg: DictConfig, form: str) -> str:
    seq2seq = cfg.model.family == "seq2seq"
    auto = "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM"
    system = f'{{"role": "system", "content": {json.dumps(cfg.data.system)}}}, ' if cfg.data.system else ""
    behind = "" if seq2seq else '[inputs["input_ids"].shape[1]:]'
    load = USE[form].format(auto=auto, base=hub_id(cfg) or "THE_BASE_MODEL")
    return load + ASK.format(system=system, behind=behind)


def _data(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if data.get("source"):
        yield "source", Path(str(data["source"])).name if "://" not in str(data["source"]) else data["source"]
    yield "SHA-256", data.get("sha256")
    yield "rows read", data.get("rows")
    yield "rows kept", data.get("kept")
    yield from ((f"dropped: {why}", count) for why, count in (data.get("dropped") or {}).items())
    yield from ((f"rows of {name}", count) for name, count in (data.get("split") or {}).items())
    yield "supervised tokens", data.get("supervised_tokens")


def _training(cfg: DictConfig, record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    parameters, metrics = record.get("parameters") or {}, record.get("metrics") or {}
    yield from ((key, OmegaConf.select(cfg, key)) for key in SETTINGS)
    yield "optimizer steps", metrics.get("steps")
    yield "weights are of step", metrics.get("best_step")
    if parameters:
        yield "trained parameters", f"{parameters['trainable']:,} of {parameters['total']:,}"
    yield "versions", ", ".join(f"{name} {number}" for name, number in (record.get("versions") or {}).items())


def _scores(found: Mapping[str, Any]) -> list[str]:
    stands_in = "" if found["split"] == "test" else " They chose the checkpoint, so they flatter it."
    lines = [
        f"{found['rows']} of {found['of']} {in_markdown(found['split'])} rows, 95 % bootstrap intervals.{stands_in}\n"
    ]
    lines += ["| score | base | tuned | difference | |", "|---|---|---|---|---|"]
    for name, entry in found["scores"].items():
        base, tuned = _with_interval(entry, "base"), _with_interval(entry, "tuned")
        row = (
            in_markdown(name),
            base,
            tuned,
            _with_interval(entry, "difference"),
            in_markdown(entry.get("verdict") or ""),
        )
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, "", f"{in_markdown(found['headline'][:1].upper() + found['headline'][1:])}.\n"]


def _with_interval(entry: Mapping[str, Any], name: str) -> str:
    sign = name == "difference"
    ends = entry.get(f"{name}_interval")
    return number(entry.get(name), sign=sign) + (f" ({interval(ends, sign=sign)})" if ends else "")


def _losses(metrics: Mapping[str, Any]) -> list[str]:
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    rows = [
        (name, number(value) + (f" ({number(before[name])} before training)" if before.get(name) else ""))
        for name, value in sorted(after.items())
    ]
    return ["No test rows were answered; these are validation rows, which chose the checkpoint.\n", *_table(rows)]


def _limits(cfg: DictConfig, scores: Mapping[str, Any] | None) -> Iterator[str]:
    prompt, answer = cfg.data.max_prompt_tokens, cfg.data.max_answer_tokens
    yield "- It has the gaps and biases of its base model; fine-tuning on a few rows teaches a form of answer, not facts."
    yield f"- It was trained on prompts of up to {prompt} and answers of up to {answer} tokens."
    if not scores:
        yield "- Nobody has measured its answers."
    yield from (f"- {in_markdown(notice)}" for notice in notices(cfg.data))
    yield "- It was not tested for safety.\n"


def _licence(cfg: DictConfig) -> str:
    known = license.of_base(cfg.model)
    if known:
        return f"The base model's licence (`{known}`) applies to these weights too; so may the terms of the data."
    return (
        "The base model's licence is not known here; it applies to these weights too, and so may the terms of the data."
    )


def _table(rows: Any) -> list[str]:
    kept = [(name, value) for name, value in rows if value is not None and value != ""]
    return ["| | |", "|---|---|", *(f"| {in_markdown(name)} | {_cell(value)} |" for name, value in kept), ""]


def _cell(value: Any) -> str:
    return in_markdown(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
