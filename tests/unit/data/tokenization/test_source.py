"""A template with its variables set and its clock stopped; templates by name; what templates add by themselves."""

import copy
from datetime import datetime

import pytest

from llmft.config.groups import prompt_config
from llmft.data.preprocessing.cache import codec_key
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.source import clock_now, named_templates, with_settings
from llmft.utils.errors import UserError
from tests.support.chat_templates import tokenizer_of

USER = (Turn("user", "Hi"),)
TOOL = '{"type": "function", "function": {"name": "t", "description": "d", "parameters": {}}}'
CLOCK = "{%- macro day() -%}{{ 'Now ' + strftime_now('%d %b %Y') }}{%- endmacro -%}{{ day() }}, {{ strftime_now(\"%Y\") }}: "
PLAIN = "{% for m in messages %}{{ m.role + ' ' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"


def codec(template, tokenizer, reasoning="template", **settings):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    prompt = prompt_config("chat").replaced(settings)
    return codec_for("causal", tokenizer, prompt, None, "answer", "last", reasoning)[0]


def text(made, tools=()):
    return made.template.render(USER, tools).text


def test_a_date_stops_the_clock_in_every_rendering(llama_tokenizer):
    stopped = codec(CLOCK + PLAIN, llama_tokenizer, date="2024-07-04")
    assert text(stopped) == "Now 04 Jul 2024, 2024: user Hi</s>assistant "
    other = copy.deepcopy(llama_tokenizer)  # any tool that renders what is exported
    other.chat_template = stopped.template.saved
    assert other.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == text(stopped)[:-10]
    assert stopped.notes() == []
    running = codec(CLOCK + PLAIN, llama_tokenizer)
    assert text(running).startswith(f"Now {datetime.now():%d %b %Y}, ")
    assert running.notes() == [
        "the prompt template writes the date of the day; prompt.date=YYYY-MM-DD keeps it the same in answers"
    ]
    assert clock_now(running.template.source) == [f"{datetime.now():%Y}", f"{datetime.now():%d %b %Y}"]


def test_no_date_is_refused():
    with pytest.raises(UserError, match=r"prompt.date=2024-13-01: must be a date"):
        with_settings(CLOCK, {}, "2024-13-01")


def test_variables_are_those_of_training_unless_a_caller_sets_them():
    tokenizer = tokenizer_of("qwen3")
    made = codec(tokenizer.chat_template, tokenizer, template_kwargs={"enable_thinking": False})
    assert text(made).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    row = made.encode(made.template.render(USER), "Yes")
    assert row.labels[row.prompt_length :] == tokenizer("Yes<|im_end|>")["input_ids"]
    other = copy.deepcopy(tokenizer)
    other.chat_template = made.template.saved
    messages = [{"role": "user", "content": "Hi"}]
    asked = other.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == text(made)
    thinks = other.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert thinks.endswith("<|im_start|>assistant\n")


def test_values_of_variables_are_written_as_jinja_has_them(llama_tokenizer):
    kwargs = {"a": None, "b": True, "c": [1, 2.5], "d": {"x": 'it\'s "so"'}}
    made = codec("{{ [a, b, c, d.x] | tojson }}" + PLAIN, llama_tokenizer, template_kwargs=kwargs)
    assert text(made).startswith('[null, true, [1, 2.5], "it\'s \\"so\\""]user')


@pytest.mark.parametrize(
    ("own", "name", "found"),
    [
        (None, None, (None, None)),
        ("a", None, ("a", None)),
        ("a", "default", ("a", None)),
        ({"default": "a", "rag": "b"}, None, ("a", None)),
        ({"default": "a", "tool_use": "b"}, None, ("a", "b")),
        ({"default": "a", "tool_use": "b"}, "tool_use", ("b", None)),
        ({"default": "a", "tool_use": "a"}, None, ("a", None)),
    ],
)
def test_templates_by_name(own, name, found):
    assert named_templates(own, name) == found


@pytest.mark.parametrize(
    ("own", "why"), [({"default": "a"}, "there are default"), ("a", "no chat templates with names")]
)
def test_a_name_that_does_not_exist_is_refused(own, why):
    with pytest.raises(UserError, match=f"prompt.template_name=x: .*{why}"):
        named_templates(own, "x")


def test_rows_with_tools_get_the_template_for_tools(llama_tokenizer):
    made = codec({"default": PLAIN, "tool_use": "{{ tools | length }} tools. " + PLAIN}, llama_tokenizer)
    assert text(made) == "user Hi</s>assistant "
    assert text(made, (TOOL,)) == "1 tools. user Hi</s>assistant "
    assert set(made.template.saved) == {"default", "tool_use"}


def test_a_system_prompt_of_the_template_itself_is_said(llama_tokenizer):
    own = "{% if messages[0].role != 'system' %}{{ 'system Be Zephyr.' + eos_token }}{% endif %}"
    assert codec(own + PLAIN, llama_tokenizer).notes() == [
        'the prompt template adds its own system prompt to rows without one: "Be Zephyr."'
    ]
    assert codec(PLAIN, llama_tokenizer).notes() == []


def test_all_of_it_is_in_the_key_of_the_cache():
    tokenizer = tokenizer_of("qwen3")
    source = tokenizer.chat_template
    made = [
        codec(source, tokenizer),
        codec(source, tokenizer, template_kwargs={"enable_thinking": False}),
        codec(source, tokenizer, reasoning="keep"),
        codec({"default": source, "tool_use": CLOCK + PLAIN}, tokenizer),
        codec(CLOCK + PLAIN, tokenizer),
        codec(CLOCK + PLAIN, tokenizer, date="2024-07-04"),
        codec(CLOCK + PLAIN, tokenizer, date="2024-07-05"),
        codec({"default": source, "other": PLAIN}, tokenizer, template_name="other"),
    ]
    keys = [str(codec_key(one)) for one in made]
    assert len(set(keys)) == len(keys)
