"""Every chat template of ``trl``: ids are those of ``apply_chat_template``, labels what the model has to generate; or a refusal.

The reference is written here, from ``apply_chat_template`` and a table of what ends a turn.
"""

import copy
import json
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.groups import prompt_config
from llmft.data.preprocessing.truncation import Truncation
from llmft.data.records import Example, Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.codec import IGNORED
from llmft.utils.errors import UserError
from tests.support.chat_templates import FOLDER, PUBLISHED, TEMPLATES, source_of, tokenizer_of

CALL = {"id": "callabc12", "type": "function", "function": {"name": "get_time", "arguments": {"city": "Oslo"}}}
RESULT = {"role": "tool", "name": "get_time", "tool_call_id": "callabc12", "content": "12:00"}
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "A city."}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": CITY}}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


ROWS = {
    "one turn": [user("What is it?"), assistant("It is a cat.")],
    "system prompt": [{"role": "system", "content": "Be brief."}, user("What is it?"), assistant("A cat.")],
    "several turns": [
        user("One?"),
        assistant("Yes."),
        user("Two?"),
        assistant("No."),
        user("Three?"),
        assistant("So."),
    ],
    "inline reasoning": [user("1 + 1?"), assistant("<think>\nAdd them.\n</think>\n\n2")],
    "reasoning": [user("1 + 1?"), assistant("2", reasoning_content="Add them.")],
    "reasoning in each turn": [
        user("1 + 1?"),
        assistant("2", reasoning_content="Add them."),
        user("2 + 1?"),
        assistant("3", reasoning_content="Once more."),
    ],
    "call": [user("Time?"), assistant("", tool_calls=[CALL])],
    "call and result": [user("Time?"), assistant("", tool_calls=[CALL]), RESULT, assistant("Noon.")],
}
# The token that ends an answer and, if it is another one, a turn of calls.
ENDS = {
    **dict.fromkeys(("cohere", "cohere2"), ("<|END_OF_TURN_TOKEN|>",)),
    **dict.fromkeys(("deepseek_r1_distill", "deepseekv3"), ("<｜end▁of▁sentence｜>",)),
    **dict.fromkeys(("gemma", "gemma3"), ("<end_of_turn>",)),
    **dict.fromkeys(
        ("gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5", "diffusion_gemma"), ("<turn|>", "<|tool_response>")
    ),
    "gemma4_v2": ("<turn|>",),
    "glm4moe": ("<|user|>", "<|observation|>"),
    "gptoss": ("<|return|>", "<|call|>"),
    **dict.fromkeys(("llama3", "llama3_1", "llama3_2"), ("<|eot_id|>",)),
    "muse_glimmer": ("<|eot|>",),
    **dict.fromkeys(("phi3", "phi3_5"), ("<|end|>",)),
}
NO_TOOLS = ("cohere", "cohere2", "deepseek_r1_distill", "gemma", "gemma3", "lfm2", "llama3", "phi3", "phi3_5")
REFUSED = {
    **{(name, row): "no place for tool_calls" for name in NO_TOOLS for row in ("call", "call and result")},
    **{("qwen3_5_nothink", row): "closes the reasoning" for row in ROWS if "reasoning" in row},
}
# Templates that read <think> ... </think> at the head of an answer as its reasoning; DeepSeek's leave it out.
CUTS = ("deepseek_r1_distill", "deepseekv3")
QWEN_TAGS = ("qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8")
NEMOTRON = tuple(name for name in TEMPLATES if name.startswith("nemotron"))
PARSES = (*CUTS, *QWEN_TAGS, *NEMOTRON, "glm4moe", "lfm2_2_5", "lfm2_2_5_v2")
NEMOTRON_CALL = "</think>\n<tool_call>\n<function=get_time>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>\n<|im_end|>"
DEEPSEEK_CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n"
    '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
)


def as_framed(name: str, message: dict[str, Any]) -> str:
    """An answer as its template frames it, where the generation prompt is no start of the conversation; by hand."""
    if name.startswith("nemotron"):
        return NEMOTRON_CALL if message.get("tool_calls") else f"</think>{message['content']}<|im_end|>"
    assert name.startswith("deepseek"), "its prompt must start the conversation"
    return DEEPSEEK_CALL if message.get("tool_calls") else f"{message['content']}<｜end▁of▁sentence｜>"


def messages_for(name: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a row as the template wants them."""
    made = []
    if name == "gemma" and messages[0]["role"] == "system":
        system, first, *rest = messages
        messages = [user(f"{system['content']}\n\n{first['content']}"), *rest]
    for message in messages:
        found = dict(message)
        typed = re.match(r"<think>\n(.*?)\n</think>\n\n(.*)", message.get("content") or "", re.DOTALL)
        if message["role"] == "assistant" and typed and name in PARSES:
            found["content"] = typed.group(2)
            if name not in CUTS:
                found["reasoning_content"] = typed.group(1)
        if "tool_calls" in message:
            found["content"] = "" if name.startswith(("gptoss", "lfm2", "glm4", "deepseek")) else None
            if name in CUTS:
                function = {"name": "get_time", "arguments": json.dumps(CALL["function"]["arguments"])}
                found["tool_calls"] = [{**CALL, "function": function}]
        made.append(found)
    return made


def reference(name: str, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Ids and labels of the last turn."""
    tokenizer = tokenizer_of(name)
    tools = TOOLS if any("tool_calls" in message for message in messages) else None
    messages = messages_for(name, messages)

    def rendered(some: list[dict[str, Any]], *, generate: bool) -> tuple[str, list[int]]:
        options: dict[str, Any] = {"tools": tools, "add_generation_prompt": generate}
        text = tokenizer.apply_chat_template(some, tokenize=False, **options)
        return text, tokenizer.apply_chat_template(some, **options)["input_ids"]

    (asked, start), (text, whole) = rendered(messages[:-1], generate=True), rendered(messages, generate=False)
    stop = ENDS.get(name, ("<|im_end|>",))[-1 if "tool_calls" in messages[-1] else 0]
    stop_id = tokenizer.convert_tokens_to_ids(stop)
    after = text[len(asked) :] if text.startswith(asked) else ""
    if whole[: len(start)] == start:
        rest = whole[len(start) :]
    elif after:
        rest = tokenizer(after, add_special_tokens=False)["input_ids"]
    else:
        rest = tokenizer(as_framed(name, messages[-1]), add_special_tokens=False)["input_ids"]
    end = len(rest) - rest[::-1].index(stop_id) if stop_id in rest else None
    rest = rest[:end] if end else [*rest, stop_id]
    return start + rest, [IGNORED] * len(start) + rest


def references(name: str, messages: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of every assistant turn: one row if it starts with the rows of all earlier turns, else one row a turn."""
    rows = [reference(name, messages[: n + 1]) for n, message in enumerate(messages) if message["role"] == "assistant"]
    ids, labels = rows[-1]
    if any(ids[: len(earlier)] != earlier for earlier, _ in rows):
        return rows
    for row in rows[:-1]:
        labels = [mine if theirs == IGNORED else theirs for mine, theirs in zip(labels, row[1], strict=False)] + labels[
            len(row[1]) :
        ]
    return [(ids, labels)]


@cache
def codec(name: str, turns: str = "last", reasoning: str = "template") -> Any:
    tokenizer = tokenizer_of(name)
    stops = tokenizer.convert_tokens_to_ids(PUBLISHED[name].stops.split())
    return codec_for("causal", tokenizer, prompt_config("chat"), None, "answer", turns, reasoning, stops)[0]


def example(messages: list[dict[str, Any]]) -> Example:
    turns = [
        Turn(
            message["role"],
            message.get("content") or "",
            reasoning=message.get("reasoning_content"),
            tool_calls=tuple(map(json.dumps, message.get("tool_calls", ()))),
            name=message.get("name", ""),
            tool_call_id=message.get("tool_call_id", ""),
        )
        for message in messages
    ]
    tools = tuple(map(json.dumps, TOOLS)) if any("tool_calls" in message for message in messages) else ()
    return Example.from_turns(turns, "1", tools=tools)


def encoded(made: Any, messages: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    rows = [Truncation(9999, 9999, "error").fit(part, made).row for part in made.parts(example(messages))]
    for row in rows:
        assert row.stops_once(made.stop_ids)
        assert row.untrained_turns == 0
        assert row.supervised == len(row.labels) - row.labels.count(IGNORED)
    return [(row.input_ids, row.labels) for row in rows]


@pytest.mark.parametrize("name", TEMPLATES)
def test_control_tokens_are_single_ids(name):
    """Or the proof below would hold for letters."""
    tokenizer, published = tokenizer_of(name), PUBLISHED[name]
    declared = [
        *published.special.split(),
        *published.plain.split(),
        *published.stops.split(),
        published.bos,
        published.eos,
    ]
    for token in filter(None, declared):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1, token
    source = re.sub(r"\{#.*?#\}", "", source_of(name), flags=re.DOTALL)
    written = set(re.findall(r"<\|[a-zA-Z_]+\|>|<｜[^｜]+｜>|<\|?(?:turn|channel|tool_call|tool_response)\|?>", source))
    unknown = {token for token in written if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1}
    unknown = {token for token in unknown if not re.search("vision|image|video|patch", token)}
    assert not unknown - {"<tool_call>", "<tool_response>"}, "the template writes control tokens that the table lacks"


def test_there_are_templates():
    assert set(TEMPLATES) == set(PUBLISHED)


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_row_is_exact_or_refused(name):
    for row, messages in ROWS.items():
        if reason := REFUSED.get((name, row)):
            with pytest.raises(UserError, match=reason):
                encoded(codec(name), messages)
            continue
        assert encoded(codec(name), messages) == [reference(name, messages)], row
        asked = codec(name).template.render(example(messages).context, example(messages).tools)
        assert codec(name).prompt_ids(asked) == reference(name, messages)[0][: len(codec(name).prompt_ids(asked))]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_turn_is_trained_under_the_prompt_that_asks_for_it(name):
    for row in ("several turns", "reasoning in each turn", "call and result"):
        if (name, row) not in REFUSED:
            assert encoded(codec(name, "all"), ROWS[row]) == references(name, ROWS[row]), row


# Templates that write a text of arguments as it is; the others take an object, and write it in their own way.
VERBATIM = ("deepseekv3", "qwen3", "qwen3_instruct_2507")


@pytest.mark.parametrize("name", [*VERBATIM, "gptoss", "llama3_2", "qwen2_5"])
def test_arguments_that_are_a_text_stay_as_they_are_where_the_template_can(name):
    for text in ('{"city":  "Oslo"}', '{"city":"Os\\u006co" }'):
        calls = [{**CALL, "function": {"name": "get_time", "arguments": text}}]
        [(ids, labels)] = encoded(codec(name), [user("Time?"), assistant("", tool_calls=calls)])
        trained = tokenizer_of(name).decode([label for label in labels if label != IGNORED])
        assert (text if name in VERBATIM else "Oslo") in trained
        if name.startswith("qwen3"):
            messages = [user("Time?"), {**assistant(""), "tool_calls": calls}]
            assert ids == tokenizer_of(name).apply_chat_template(messages, tools=TOOLS)["input_ids"][: len(ids)]


FEW = ["cohere2", "deepseekv3", "gptoss", "glm4moe", "nemotron_3_nano", "phi3", "qwen3", "qwen3_5_think"]
words = st.lists(
    st.sampled_from(["a", "b c", "\n", " ", "\n\n", "é", "{", "<", "th", "Yes", "</", "|>"]), min_size=1, max_size=6
)
content = words.map("".join).filter(lambda text: text.strip() and "</th" not in text)


@pytest.mark.parametrize("name", FEW)
@settings(max_examples=12)
@given(question=content, answer=content, reasoning=st.none() | content)
def test_any_text_is_encoded_as_the_template_writes_it(name, question, answer, reasoning):
    more = {} if reasoning is None or name in CUTS else {"reasoning_content": reasoning}
    if name.startswith(("deepseek", "nemotron")):
        answer = answer.strip()  # the reference frames it by hand
    messages = [user(question), assistant(answer, **more)]
    assert encoded(codec(name), messages) == [reference(name, messages)]


@pytest.mark.parametrize("name", FEW)
@settings(max_examples=8)
@given(data=st.data())
def test_control_tokens_that_people_type_stay_text(name, data):
    made = codec(name)
    typed = st.sampled_from(made.template.controls)
    question, answer, reasoning = (f"a {data.draw(typed)} b" for _ in range(3))
    rows = [
        Truncation(9999, 9999, "error").fit(Example((Turn("user", q),), a, reasoning=r), made).row
        for q, a, r in ((question, answer, reasoning), ("Hi", "Yes", "Because"))
    ]
    controls = set(made.tokenizer.convert_tokens_to_ids(list(made.template.controls)))
    with_typed, without = ([token for token in row.input_ids if token in controls] for row in rows)
    assert with_typed == without
    assert rows[0].stops_once(made.stop_ids)
    back = made.tokenizer.decode(rows[0].input_ids)
    assert question in back
    assert answer in back


@pytest.mark.parametrize(("name", "opened"), [("deepseekv3", ""), ("gemma3", "<think>"), ("qwen3", "<think>")])
def test_reasoning_is_kept_or_dropped(name, opened):
    messages = [user("1 + 1?"), assistant("2", reasoning_content="Add them.")]
    [(ids, labels)] = encoded(codec(name, reasoning="keep"), messages)
    trained = tokenizer_of(name).decode([label for label in labels if label != IGNORED])
    stop = ENDS.get(name, ("<|im_end|>",))[0]
    assert trained == f"{opened}\nAdd them.\n</think>\n\n2{stop}" if opened else f"Add them.\n</think>\n\n2{stop}"
    assert (
        ids.count(tokenizer_of(name).convert_tokens_to_ids(stop))
        - labels.count(tokenizer_of(name).convert_tokens_to_ids(stop))
        >= 0
    )
    plain = [user("1 + 1?"), assistant("2")]
    assert encoded(codec(name, reasoning="drop"), messages) == encoded(codec(name), plain)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + ('<think>\\n\\n</think>\\n\\n' if m.role == 'assistant' else '')"
    " + m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.mark.parametrize(("policy", "block"), [("template", "\n\n"), ("keep", "\nAdd them.\n"), ("drop", "\n\n")])
def test_the_empty_block_of_a_template_is_never_a_second_one(policy, block):
    tokenizer = copy.deepcopy(tokenizer_of("qwen3"))
    tokenizer.chat_template = CHATML
    made = codec_for("causal", tokenizer, prompt_config("chat"), None, "answer", "last", policy)[0]
    [(ids, labels)] = encoded(made, ROWS["inline reasoning"])
    text = f"<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n<think>{block}</think>\n\n2<|im_end|>"
    assert ids == tokenizer(text)["input_ids"]
    assert tokenizer.decode([label for label in labels if label != IGNORED]) == text.partition("assistant\n")[2]


def test_runs_that_were_trained_on_spelled_out_tokens_are_not_resumed():
    from llmft.training import build

    spelled = {name for name in TEMPLATES if codec(name).was_spelled}
    same = {"cohere", "gemma", "gemma3", "llama3", "llama3_1", "llama3_2", "phi3", "qwen2_5", "deepseekv3", "lfm2"}
    assert not spelled & same
    assert {"qwen3", "qwen3_5_think", "gptoss", "glm4moe", "cohere2", "muse_glimmer", "nemotron_3_nano"} <= spelled
    for record in ({}, {"data": {"split_conversations": 0}}):
        build._check_frame(record, codec("qwen3"))
    build._check_frame({"data": {"rows": 1}}, codec("qwen2_5"))
    with pytest.raises(UserError, match="further steps would train other ids"):
        build._check_frame({"data": {"rows": 1}}, codec("qwen3"))


# Templates whose rendered conversation does not begin with the generation prompt, or whose variant for training renders otherwise.
NOT_COMPARED = {"deepseek_r1_distill", "deepseekv3", "llama3", "nemotron_3_5_lightning", "nemotron_3_nano"}
NOT_COMPARED |= {"nemotron_3_super", "nemotron_3_ultra", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8"}


@pytest.mark.parametrize(
    "name", [name for name in TEMPLATES if (FOLDER / f"{name}_training.jinja").exists() and name not in NOT_COMPARED]
)
def test_labels_are_the_spans_that_the_template_for_training_marks(name):
    """``{% generation %}`` of trl's own variants, which we do not read, marks the same tokens up to the stop token."""
    messages = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
    marks = (FOLDER / f"{name}_training.jinja").read_text(encoding="utf-8")
    options: Any = {"chat_template": marks, "return_dict": True, "return_assistant_tokens_mask": True}
    made: Any = tokenizer_of(name).apply_chat_template(messages, **options)
    ((ids, labels),) = encoded(codec(name), messages)
    assert made["input_ids"][: len(ids)] == ids
    prompt = tokenizer_of(name).apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    # what the generation prompt holds is not trained, though some variants mark the header
    marked = [place for place, mark in enumerate(made["assistant_masks"][: len(ids)]) if mark and place >= len(prompt)]
    assert marked == [place for place, label in enumerate(labels) if label != IGNORED]
