"""What each token of an encoded example is: prompt, reasoning, answer, call or stop token."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from llmft.data.records import Example
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.codec import IGNORED, Codec, EncodedExample
from llmft.utils.errors import UserError

# Stands for an answer, to see where it begins.
OTHER = "\U0010fffd"


def token_kinds(row: EncodedExample, example: Example, codec: Codec) -> list[str]:
    """The kind of each label (causal: of each id); text of the template between two kinds belongs to the one before it.

    An earlier turn that is trained too is ``answer`` and ``stop``. What the template writes before an answer without
    reasoning, such as an empty block, is ``reasoning``.
    """
    if not row.joined:
        return ["stop" if not row.cut and n == len(row.labels) - 1 else "answer" for n in range(len(row.labels))]
    kinds = ["answer" if label != IGNORED else "prompt" for label in row.labels]
    for number, kind in enumerate(kinds):
        ends = number + 1 == len(kinds) or kinds[number + 1] == "prompt"
        if kind != "prompt" and ends and row.input_ids[number] in codec.stop_ids:
            kinds[number] = "stop"
    if not isinstance(codec, CausalCodec) or kinds[-1] == "prompt":
        return kinds
    part = _part(row, example, codec)
    if part is None:
        return kinds
    tail = row.input_ids[row.prompt_length :]
    first, last = _content(part, codec)
    ends = [len(codec.tokenizer.decode(tail[: n + 1], clean_up_tokenization_spaces=False)) for n in range(len(tail))]
    for number, end in enumerate(ends, start=row.prompt_length):
        if kinds[number] == "answer" and end <= first:
            kinds[number] = "reasoning"
        elif kinds[number] == "answer" and part.tool_calls and end > last:
            kinds[number] = "call"
    return kinds


def _part(row: EncodedExample, example: Example, codec: CausalCodec) -> Example | None:
    """The example of this answer of a conversation; None if it was truncated."""
    asked = row.input_ids[: row.prompt_length]
    for part in codec.parts(example):
        if codec.prompt_ids(codec.template.render(part.context, part.tools)) == asked:
            return part
    return None


def _content(example: Example, codec: CausalCodec) -> tuple[int, int]:
    """First and last character of the answer's text in what the model has to generate."""
    prompt = codec.template.render(example.context, example.tools)
    reply = codec.template.for_tools(example.tools).prepared(example.reply)
    text = "".join(codec.dialogue(prompt, reply).rest)
    try:
        marked = "".join(codec.dialogue(prompt, replace(reply, content=OTHER + reply.content)).rest)
    except UserError:  # a template may refuse a text beside calls or reasoning
        return 0, 0
    start, content = marked.find(OTHER), reply.content.strip()
    end = text.find(content, start) + len(content) if content else start
    return start, end


def kind_spans(kinds: list[str], ids: list[int]) -> Iterator[tuple[str, list[int]]]:
    """Ids in spans of one kind."""
    for kind, pairs in groupby(zip(kinds, ids, strict=True), key=lambda pair: pair[0]):
        yield kind, [token for _, token in pairs]
