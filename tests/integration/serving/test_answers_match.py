"""``serve`` and ``chat`` give the answers of ``answer``, for rows of every data set and both families."""

from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from llmft.chat.history import Conversation
from llmft.data.datamodule import open_data
from tests.conftest import DATA, typed_config
from tests.support.server import composed, generator, serving

MAX_PROMPT_TOKENS = 700  # a byte is a token here


def contexts(name, rows):
    """The first prompts of a data set as messages; the input of a question is part of its message."""
    data = open_data(typed_config(composed(f"data={name}", "data.path=sample")).data)
    data.read()
    return [[turn.message() for turn in example.context] for example in data.examples][:rows]


@pytest.mark.parametrize("rows", [2, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["tiny_t5", "tiny_gpt2", pytest.param("tiny_llama", marks=pytest.mark.slow)])
def test_serve_chat_and_answer_give_the_same_answers(name, rows):
    from llmft.data.records import Turn

    one = generator(name, max_new_tokens=10)
    asked = []
    for data in DATA:
        for messages in contexts(data, rows):
            turns = [Turn(message["role"], message["content"]) for message in messages]
            if (
                len(one.codec.prompt_ids(one.codec.template.render(turns))) <= MAX_PROMPT_TOKENS
                and turns[-1].role == "user"
            ):
                asked.append(turns)
    assert len(asked) >= 3 * rows
    wanted = [answer.text for answer in one.answers(asked)]
    with serving({"mine": one}) as made, ThreadPoolExecutor(8) as pool:

        def post(turns):
            body = {"model": "mine", "messages": [{"role": turn.role, "content": turn.content} for turn in turns]}
            return httpx.post(f"{made.url}/v1/chat/completions", json=body, timeout=120).json()["choices"][0][
                "message"
            ]["content"]

        assert list(pool.map(post, asked)) == wanted
    assert [chatted(one, turns) for turns in asked] == wanted


def chatted(one, turns):
    """The answer that ``chat`` gives."""
    rest = list(turns)
    system = rest.pop(0).content if rest[0].role == "system" else None
    history = Conversation(one.codec, 4000, single_turn=False, system=system)
    history.exchanges = [(rest[i].content, {"tuned": rest[i + 1].content}) for i in range(0, len(rest) - 1, 2)]
    decoder = one.decoder()
    stream = decoder.stream(history.prompt(rest[-1].content, "tuned").ids, seed=0)
    decoder.run([stream])
    return stream.text
