"""``python docs/make_chat_data.py`` writes docs/chat-data.md: rows, and what is trained of them, as ``preview`` shows it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "chat-data.md"
sys.path.insert(0, str(ROOT))

from tests.support.chat_shapes import CASES, INTRODUCTION, Case  # noqa: E402
from tests.support.chat_templates import tokenizer_of  # noqa: E402

from llmft.config.groups import prompt_config  # noqa: E402
from llmft.data.preprocessing.truncation import Truncation  # noqa: E402
from llmft.data.row_fields import chat_example  # noqa: E402
from llmft.data.tokenization.build import codec_for  # noqa: E402
from llmft.data.tokenization.codec import Codec  # noqa: E402
from llmft.diagnostics.show_tokens import render_spans, trained_spans  # noqa: E402
from llmft.models.backbone.tiny import byte_tokenizer  # noqa: E402


def codec_of(case: Case) -> Codec:
    """The codec of a case's template."""
    if case.template == "t5":
        tokenizer = byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, ends_with_eos=True)
        return codec_for("seq2seq", tokenizer, prompt_config("t5"), None, "answer", case.turns)[0]
    tokenizer = tokenizer_of(case.template)
    return codec_for(
        "causal", tokenizer, prompt_config("chat"), None, "answer", case.turns, reasoning=case.reasoning
    )[0]  # fmt: skip


def blocks(case: Case) -> Iterator[str]:
    """What is trained of a row, one block per example."""
    codec = codec_of(case)
    field = next(iter(case.row))
    for part in codec.parts(chat_example(case.row, field)):
        row = Truncation(9999, 9999, "error").fit(part, codec).row
        yield "```text\n" + render_spans(trained_spans(row), codec).plain.rstrip() + "\n```\n"


def page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for case in CASES:
        row = json.dumps(case.row, ensure_ascii=False)
        parts += [f"## {case.title}\n\n{case.text}\n", f"```json\n{row}\n```\n", *blocks(case)]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
