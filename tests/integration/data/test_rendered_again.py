"""The referee renders the ids and labels that the training has, from file and template alone, or says that it has no rule."""

import json

import pytest

from llmft.data.records import Example, Turn
from llmft.referee.render import NotRendered, Renderer
from llmft.training.prove import renderer_of
from tests.guarantees.test_every_chat_template import ROWS, codec
from tests.support.chat_templates import PUBLISHED, TEMPLATES

PLAIN = ("one turn", "system prompt", "several turns")
DEFAULT = ("gemma3", "llama3_1", "qwen3")
# Their generation prompt is no start of the conversation, or an answer ends where the next turn begins.
NO_RULE = ("deepseek", "nemotron", "glm4moe")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in TEMPLATES])
def test_chat_templates(name, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": ROWS[row]}) + "\n" for row in PLAIN))
    made, tokenizer = codec(name), codec(name).tokenizer
    stops = tokenizer.convert_tokens_to_ids(PUBLISHED[name].stops.split())
    renderer = Renderer(
        causal=True, tokenizer=tokenizer, template=None, files={"rows.jsonl": file}, kind="Academic", columns={}, system=None,
        stop_ids=stops, train_on="answer", every_turn=False, budgets=(9999, 9999),
    )  # fmt: skip
    for number, row in enumerate(PLAIN, start=1):
        turns = [Turn(message["role"], message["content"]) for message in ROWS[row]]
        example = Example(tuple(turns[:-1]), turns[-1].content)
        if name.startswith(NO_RULE) or (name, row) == ("gemma", "system prompt"):
            with pytest.raises(NotRendered):
                renderer.render(f"rows.jsonl:{number}")
            continue
        wanted = made.encode(made.template.render(example.context), example.reply)
        found = renderer.render(f"rows.jsonl:{number}")
        assert (found.input_ids, found.labels) == (wanted.input_ids, wanted.labels), row


SETS = [
    ("tiny_llama", "academic", "auto"),
    ("tiny_t5", "openorca", "t5"),
    *(
        pytest.param(model, data, prompt, marks=pytest.mark.slow)
        for model in ("tiny_gpt2", "tiny_llama", "tiny_gemma", "tiny_t5")
        for data in ("alpaca", "academic", "openorca", "psychology", "keyword_qa")
        for prompt in ("auto", "plain", "inst", "alpaca", "t5", "source")
    ),
]


@pytest.mark.parametrize(("model", "data", "prompt"), SETS)
def test_data_sets_and_text_templates(model, data, prompt, load_config):
    from llmft.data.datamodule import open_data
    from llmft.models.backbone.open import Backbone

    rows = ("data.path=sample", "data.limit=12", "data.cache=off")
    config = load_config(f"model={model}", f"data={data}", f"prompt={prompt}", *rows)
    backbone, module = Backbone.open(config), open_data(config.data)
    module.read()
    module.encode(backbone.codec)
    renderer = renderer_of(config, backbone, module)
    for row in module.encoded["train"]:
        found = renderer.render(row.place)
        assert (found.input_ids, found.labels) == (row.input_ids, row.labels), row.place


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": ROWS["call"]}, "more than role and content"),
        ({"messages": ROWS["inline reasoning"]}, "reasoning or tools"),
        ({"messages": [{"role": "user", "content": "</s>"}, {"role": "assistant", "content": "a"}]}, "control token"),
        ({"text": "a"}, "no rule"),
    ],
)
def test_rows_without_a_rule(row, why, tmp_path, load_config):
    from llmft.data.datamodule import open_data
    from llmft.models.backbone.open import Backbone

    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    config = load_config("model=tiny_llama", "data=academic", f"data.path={tmp_path / 'rows.jsonl'}")
    renderer = renderer_of(config, Backbone.open(config), open_data(config.data))
    with pytest.raises(NotRendered, match=why):
        renderer.render(f"{tmp_path / 'rows.jsonl'}:1")
