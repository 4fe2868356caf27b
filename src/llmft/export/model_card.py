"""Write the model card (``README.md``) of a run: usage, data, training settings, scores, limitations, license."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmft.config.schema import TrainConfig
from llmft.data.notice import notices
from llmft.export import license
from llmft.export.base_model import local_name, published_id, rounding
from llmft.export.model_card_head import head
from llmft.export.use.section import section
from llmft.metrics.format import computed_in, format_interval, format_number, split_name
from llmft.metrics.suites import all_scores
from llmft.metrics.verdict.verdict import Verdict, stored_verdict
from llmft.models.peft.trainable import is_adapter
from llmft.runs.read import read_evaluation
from llmft.runs.record import read_record
from llmft.utils import files
from llmft.utils.text import in_markdown

# Config keys in the table of training settings.
SETTINGS = (
    "peft.name", "peft.r", "peft.alpha", "peft.dropout", "peft.targets", "optim._target_", "optim.lr", "optim.weight_decay",
    "scheduler.name", "scheduler.warmup_steps", "data.batch_size", "data.batching", "trainer.accumulate_grad_batches",
    "model.dtype", "trainer.precision", "data.max_prompt_tokens", "data.max_answer_tokens", "data.train_on",
    "data.train_on_turns", "seed",
)  # fmt: skip


def write(run: Path, cfg: TrainConfig) -> None:
    """Write the card of ``model/``; called when the weights are saved, and again when they have been evaluated.

    Raises:
        UserError: ``run.json`` cannot be read.
    """
    form = "adapter" if is_adapter(cfg.peft) else "merged"
    files.atomic_write(run / "model" / "README.md", card(cfg, read_record(run), read_evaluation(run), form))


def card(
    cfg: TrainConfig,
    record: Mapping[str, Any],
    scores: Mapping[str, Any] | None,
    form: str,
    *,
    folder: Path | None = None,
    checked: Sequence[str] = (),
    name: str | None = None,
    language: str | None = None,
    hub: str | None = None,
) -> str:
    """The card as Markdown with YAML front matter for the Hub, without local paths.

    Args:
        cfg: The run's config.
        record: The content of ``run.json`` (``data``, ``metrics``, ``versions``, ``parameters``).
        scores: The content of ``evaluation.json``; None if nothing was evaluated.
        form: The form of the export; ``adapter`` or ``merged`` for ``model/`` of a run.
        folder: The exported folder; needed for the forms gguf and onnx.
        checked: The lines of the section about the check in the form's runtime; none for ``model/``.
        name: The title; None is made of data and model.
        language: Code of the answers' language; None takes the base model's card.
        hub: ``owner/name`` on the Hub, if it is pushed.
    """
    title = name or f"{cfg.data.name} on {cfg.model.name}"
    parts = [
        head(cfg, form, title, scores, language),
        f"# {in_markdown(title)}\n",
        f"{base_model_name(cfg)}, fine-tuned with llmft ({in_markdown(cfg.peft.name)}; {_form(form)}).\n",
        "## Use\n",
        section(cfg, form, folder, hub),
        *(["## Checked in its runtime\n", *checked] if checked else []),
        "## Data\n",
        *_table(_data(record.get("data") or {})),
        "## Training\n",
        *_table(_training(cfg, record)),
        "## Scores\n",
        *_verdict(stored_verdict(scores, record)),
        *(_scores(scores) if scores else _losses(record.get("metrics") or {})),
        "## Limitations\n",
        *_limitations(cfg, scores),
        "## License\n",
        _license(cfg) + "\n",
    ]
    return "\n".join(parts)


def base_model_name(cfg: TrainConfig) -> str:
    """The base model's public name: a Hub id, a package, or the name of a local folder without its path."""
    known = published_id(cfg)
    if known or cfg.model.path.startswith(("pypi:", "tiny:")):
        revision = f", revision `{cfg.model.revision}`" if cfg.model.revision else ""
        source = f", from `{cfg.model.path}`" if known and known != cfg.model.path else ""
        rounded = f", {rounding(cfg)}" if rounding(cfg) else ""
        return f"`{known or cfg.model.path}`{revision}{in_markdown(rounded)}{source}"
    name = local_name(cfg).replace("`", "'")  # a backtick would end the code span
    return f"`{name}` (a local folder)"


def _form(form: str) -> str:
    return "adapter only" if form == "adapter" else "full weights"


def _data(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if data.get("source"):
        yield "source", Path(str(data["source"])).name if "://" not in str(data["source"]) else data["source"]
    yield "SHA-256", data.get("sha256")
    yield "rows read", data.get("rows")
    yield "rows kept", data.get("kept")
    yield from ((f"dropped: {why}", count) for why, count in (data.get("dropped") or {}).items())
    yield from ((f"rows of {name}", count) for name, count in (data.get("split") or {}).items())
    yield "supervised tokens", data.get("supervised_tokens")


def _training(cfg: TrainConfig, record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    parameters, metrics = record.get("parameters") or {}, record.get("metrics") or {}
    yield from ((key, cfg.select(key)) for key in SETTINGS)
    yield "optimizer steps", metrics.get("steps")
    yield "best checkpoint (step)", metrics.get("best_step")
    yield "when it was best", (metrics.get("best") or {}).get("sentence")
    if parameters:
        yield "trainable parameters", f"{parameters['trainable']:,} of {parameters['total']:,}"
    yield (
        "versions",
        ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items()),
    )


def _verdict(found: Verdict) -> list[str]:
    headline, *rest = found.lines()
    return [f"**{in_markdown(headline)}**\n", *(f"{in_markdown(line)}\n" for line in rest)]


def _scores(found: Mapping[str, Any]) -> list[str]:
    bias = {
        "val": " They also selected the checkpoint, so the scores are optimistic.",
        "train": " The model was trained on them, so the scores are optimistic.",
    }.get(found["split"], "")
    rows = f"{found['rows']} of {found['of']} {in_markdown(split_name(found['split']))} rows"
    lines = [f"{rows}{in_markdown(computed_in(found))}, 95 % bootstrap intervals.{bias}\n"]
    lines += ["| score | base | tuned | difference | |", "|---|---|---|---|---|"]
    for name, entry in all_scores(found).items():
        base, tuned = _with_interval(entry, "base"), _with_interval(entry, "tuned")
        row = (
            in_markdown(name),
            base,
            tuned,
            _with_interval(entry, "difference"),
            in_markdown(entry.get("verdict") or ""),
        )
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, ""]


def _with_interval(entry: Mapping[str, Any], name: str) -> str:
    sign = name == "difference"
    ends = entry.get(f"{name}_interval")
    return format_number(entry.get(name), sign=sign) + (f" ({format_interval(ends, sign=sign)})" if ends else "")


def _losses(metrics: Mapping[str, Any]) -> list[str]:
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    rows = [
        (name, format_number(value) + (f" ({format_number(before[name])} before training)" if before.get(name) else ""))
        for name, value in sorted(after.items())
    ]
    return [
        "No test rows were evaluated; these are validation metrics, which selected the checkpoint.\n",
        *_table(rows),
    ]


def _limitations(cfg: TrainConfig, scores: Mapping[str, Any] | None) -> Iterator[str]:
    prompt, answer = cfg.data.max_prompt_tokens, cfg.data.max_answer_tokens
    yield "- It inherits the limitations and biases of its base model; fine-tuning on a few rows teaches style, not facts."
    if rounding(cfg):
        yield f"- Base model: {rounding(cfg)}. With the published weights the answers differ from those that were checked."
    yield f"- It was trained on prompts of up to {prompt} tokens and answers of up to {answer} tokens."
    if not scores:
        yield "- Its answers have not been evaluated."
    yield from (f"- {in_markdown(notice)}" for notice in notices(cfg.data))
    yield "- It has not been tested for safety.\n"


def _license(cfg: TrainConfig) -> str:
    known = license.base_model_license(cfg.model)
    if known:
        return f"The base model's license (`{known}`) also applies to these weights, and so may the terms of the data."
    return "The base model's license is unknown; it also applies to these weights, and so may the terms of the data."


def _table(rows: Any) -> list[str]:
    kept = [(name, value) for name, value in rows if value is not None and value != ""]
    return ["| | |", "|---|---|", *(f"| {in_markdown(name)} | {_cell(value)} |" for name, value in kept), ""]


def _cell(value: Any) -> str:
    return in_markdown(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
