"""``preview``: show encoded examples: prompt, ids, tokens, and which of them are trained."""

from typing import Any

from omegaconf import DictConfig
from rich.columns import Columns
from rich.text import Text

from llmft.config.schema import PreviewConfig
from llmft.config.validate import check
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.data.preprocessing import near_duplicates
from llmft.data.preprocessing.audit import show_audit
from llmft.data.records import Example
from llmft.data.tokenization.codec import IGNORED, Codec, EncodedExample
from llmft.diagnostics.show_tokens import STYLES, TRAINED, render_kinds, trained_spans
from llmft.diagnostics.token_kinds import kind_spans, token_kinds
from llmft.models.backbone.open import Backbone
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to, quiet
from llmft.utils.text import json_line, printable


def main(cfg: DictConfig) -> None:
    """Encode the rows as training does, and print the first examples and a summary."""
    quiet()
    log_to(None)
    config = check(cfg, PreviewConfig, models=False)
    data = open_data(config.data)
    data.read()
    backbone = Backbone.open(config)
    codec = backbone.codec
    data.encode(codec)
    about = {"model": config.model.name, "prompt_name": backbone.prompt_name}
    rows = list(data.in_order()[: config.preview.rows])
    if config.format == "json":
        _print_json(data, codec, rows, about)
    else:
        _print_text(data, codec, rows, about, ids=config.preview.ids)
    if faults := data.row_counts.faults():
        raise UserError.from_faults("labels", faults)


def as_json(row: EncodedExample, codec: Codec, example: Example) -> dict[str, Any]:
    """An example as JSON; ``tokens``, ``trained``, ``kinds``, ``weights`` (if any) are aligned with ``labels``."""
    ids = row.input_ids if row.joined else row.labels
    return {
        "place": row.place,
        "prompt": codec.tokenizer.decode(row.input_ids[: row.prompt_length], clean_up_tokenization_spaces=False),
        "answer": example.answer,
        "input_ids": row.input_ids,
        "labels": row.labels,
        "tokens": codec.tokenizer.convert_ids_to_tokens(ids),
        "trained": [label != IGNORED for label in row.labels],
        "kinds": token_kinds(row, example, codec),
    } | ({} if row.weights is None else {"weights": row.weights})


def _print_json(data: InstructionDataModule, codec: Codec, rows: list[EncodedExample], about: dict[str, str]) -> None:
    out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for row, example in zip(rows, data.examples_in_order(), strict=False):
        shown = {**as_json(row, codec, example), "source": example.source}
        out.file.write(json_line(shown) + "\n")
    audit = data.audit.summary() if data.audit else {}
    near = near_duplicates.summary(data.config.near_duplicates, data.near_duplicates)
    found = {"audit": audit, "text_notes": data.text_notes, "near_duplicates": near}
    out.file.write(json_line({**about, **data.row_counts.summary(), **found}) + "\n")


def _print_text(
    data: InstructionDataModule, codec: Codec, rows: list[EncodedExample], about: dict[str, str], *, ids: bool
) -> None:
    console = Console(highlight=False)
    soft_wrap = not console.is_terminal  # a file keeps long lines; a terminal wraps them between words
    for row, example in zip(rows, data.examples_in_order(), strict=False):
        console.rule(Text(printable(row.place)), align="left")
        console.print(Text(_about(row), style="italic"), soft_wrap=soft_wrap)
        console.print(_row(row, example, codec), soft_wrap=soft_wrap)
        if ids:
            console.print(_tokens(row, codec))
    console.rule()
    legend = Text.assemble(f"{about['model']}, prompt {about['prompt_name']}; ", ("⟦trained⟧", TRAINED))
    legend.append(": the tokens with labels (").append(Text(", ").join(Text(*kind) for kind in STYLES.items()))
    console.print(legend.append(")"), soft_wrap=soft_wrap)
    for line in data.row_counts.lines():
        console.print(Text(printable(line)), soft_wrap=soft_wrap)
    for line in data.findings():
        console.print(Text(printable(line)), soft_wrap=soft_wrap)
    show_audit(data.audit)


def _row(row: EncodedExample, example: Example, codec: Codec) -> Text:
    """Prompt, reasoning, answer, calls and stop token, each in its color."""
    kinds = token_kinds(row, example, codec)
    source = [] if row.joined else [("prompt", row.input_ids)]
    return render_kinds([*source, *kind_spans(kinds, row.input_ids if row.joined else row.labels)], codec)


def _about(row: EncodedExample) -> str:
    parts = [f"{row.prompt_length} tokens of prompt, {row.answer_length} of answer, {row.supervised} trained"]
    if row.weights is not None:
        weights = sorted({w for w, label in zip(row.weights, row.labels, strict=True) if label != IGNORED})
        parts.append(f"weight {', '.join(f'{weight:g}' for weight in weights)}")
    parts += ["answer truncated, no stop token"] * row.cut
    parts += ["tokens would merge at the answer, which was encoded separately"] * row.merged
    parts += [f"{len(row.lost)} characters lost"] * bool(row.lost)
    return "; ".join(parts)


def _tokens(row: EncodedExample, codec: Codec) -> Columns:
    cells = []
    for trained, ids in trained_spans(row):
        for token, id_ in zip(codec.tokenizer.convert_ids_to_tokens(ids), ids, strict=True):
            cells.append(Text.assemble((f"{id_} ", "cyan"), (printable(token), TRAINED if trained else "dim")))
        cells[-len(ids)] = Text("⟦") + cells[-len(ids)] if trained else cells[-len(ids)]
        cells[-1] = cells[-1] + Text("⟧") if trained else cells[-1]
    return Columns(cells, padding=(0, 2))
