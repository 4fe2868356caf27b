"""``preview``: what the rows become: prompt, ids, tokens, and which of them are trained."""

import json
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from llmft import session
from llmft.check import check
from llmft.commands.summary import printable
from llmft.data.base import InstructionDataModule
from llmft.encoding import IGNORED, Codec, Encoded
from llmft.models import backbone


def main(cfg: DictConfig) -> None:
    """Encode the rows as training does, and print the first ones and a summary."""
    session.quiet()
    session.log_to(None)
    check(cfg)
    data = instantiate(cfg.data)()
    data.read()
    place = backbone.locate(cfg.model, get_class(cfg.model._target_).auto_class)
    codec, prompt = session.codec_of(cfg, backbone.load_tokenizer(place, cfg.model))
    data.encode(codec)
    show = _print_json if cfg.format == "json" else _print_text
    show(data, codec, data.in_order()[: cfg.preview.rows], {"model": cfg.model.name, "prompt_name": prompt})


def as_json(row: Encoded, codec: Codec, answer: str) -> dict[str, Any]:
    """One row as contracted; ``tokens`` and ``trained`` stand beside ``labels`` (for seq2seq: of the target)."""
    ids = row.input_ids if row.joined else row.labels
    return {
        "place": row.place,
        "prompt": codec.tokenizer.decode(row.input_ids[: row.prompt_length], clean_up_tokenization_spaces=False),
        "answer": answer,
        "input_ids": row.input_ids,
        "labels": row.labels,
        "tokens": codec.tokenizer.convert_ids_to_tokens(ids),
        "trained": [label != IGNORED for label in row.labels],
    }


def _print_json(data: InstructionDataModule, codec: Codec, rows: list[Encoded], about: dict[str, str]) -> None:
    out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    answers = {example.place: example.answer for example in data.examples}
    for row in rows:
        out.file.write(json.dumps(as_json(row, codec, answers[row.place]), ensure_ascii=False) + "\n")
    out.file.write(json.dumps({**about, **data.account.summary()}, ensure_ascii=False) + "\n")


def _print_text(data: InstructionDataModule, codec: Codec, rows: list[Encoded], about: dict[str, str]) -> None:
    console = Console(highlight=False)
    for row in rows:
        console.rule(Text(row.place), align="left")
        console.print(_row(row, codec), soft_wrap=True)
    console.rule()
    console.print(
        f"{about['model']}, prompt {about['prompt_name']}; [bold green]⟦trained⟧[/]: loss is taken there, and nowhere else"
    )
    for line in data.account.lines():
        console.print(Text(line))


def colored(prompt: list[int], trained: list[int], codec: Codec) -> Text:
    """Ids as text: what is given dim, what is trained bright and in brackets."""

    def text(ids: list[int]) -> str:
        return printable(codec.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    return Text.assemble((text(prompt), "dim"), ("⟦" + text(trained) + "⟧", "bold green"))


def _row(row: Encoded, codec: Codec) -> Text:
    trained = [label for label in row.labels if label != IGNORED]
    return colored(row.input_ids[: -len(trained)] if row.joined else row.input_ids, trained, codec)
