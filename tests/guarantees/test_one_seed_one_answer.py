"""One seed gives one sampled answer to a prompt: alone in ``answer``, next to others, in evaluation, ``chat`` and ``serve``."""

import io
import json

import httpx2 as httpx
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from llmft.data.records import Turn
from llmft.generation.load import load_streaming
from tests.conftest import composed, read_json_lines, typed_config, write_rows
from tests.support.server import serving

pytestmark = pytest.mark.guarantees
SETTINGS = ("generation=sample", "generation.temperature=1.5", "generation.max_new_tokens=12")
QUESTION = "What is label masking?"
OTHERS = ["Hi", "How does a tokenizer split a word that it has never seen before?"]


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_one_seed_one_answer(model, llmft, monkeypatch, tmp_path):
    def answered(seed, *questions):
        write_rows(tmp_path / "q.jsonl", *({"question": question} for question in questions))
        code, out, err = llmft(
            "answer", f"model={model}", *SETTINGS, f"generation.seed={seed}", "input=q.jsonl", "format=json"
        )
        assert code == 0, err
        return [json.loads(line)["answer"] for line in out.splitlines()]

    alone = answered(7, QUESTION)[0]
    assert len(alone) > 3
    assert answered(8, QUESTION)[0] != alone
    batched = answered(7, OTHERS[0], QUESTION, OTHERS[1])
    assert batched[1] == alone

    # what evaluation and the samples in training call: prompts in another order, one at a time, and twice
    with monkeypatch.context() as patch:
        patch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"overrides": {"task": []}}))
        cfg = typed_config(composed(f"model={model}", *SETTINGS, "generation.seed=7", command="answer"), "answer")
        generator, _ = load_streaming(cfg)
    ids = [
        generator.codec.prompt_ids(generator.codec.template.render(context))
        for context in contexts(QUESTION, *OTHERS, QUESTION)
    ]
    for size in (1, 4):
        continued = [answer.text for answer in generator.with_settings(batch_size=size).continued(ids)]
        assert continued == [alone, batched[0], batched[2], alone]

    # the same settings twice: several samples of a prompt start with that answer and differ from each other
    decoder = generator.decoder()
    samples = [decoder.stream(ids[0], seed=7, sample=sample) for sample in range(3)]
    decoder.run(samples)
    assert samples[0].text == alone
    assert len({stream.text for stream in samples}) == 3

    with serving({"mine": generator}) as server:
        body = {"messages": [{"role": "user", "content": QUESTION}], "model": "mine", "n": 2}
        replies = [
            httpx.post(f"{server.url}/v1/chat/completions", json={**body, "seed": seed}, timeout=60).json()["choices"]
            for seed in (7, 8)
        ]
    assert [choice["message"]["content"] for choice in replies[0]] == [stream.text for stream in samples[:2]]
    assert replies[1][0]["message"]["content"] != alone

    monkeypatch.setattr(
        "sys.stdin", io.StringIO(f"{QUESTION}\n/save chat.jsonl\n/reset\nHi\n{QUESTION}\n/save chat.jsonl\n")
    )
    code, _, err = llmft("chat", f"model={model}", *SETTINGS, "generation.seed=7")
    assert code == 0, err
    first, second = (row["messages"] for row in read_json_lines(tmp_path / "chat.jsonl"))
    assert [message["content"] for message in first] == [QUESTION, alone]
    assert second[1]["content"] == batched[0]
    # later turns too: T5 answers each question on its own, the others as ``answer`` does with the conversation so far
    write_rows(tmp_path / "turns.jsonl", {"messages": second if model != "tiny_t5" else first})
    code, out, err = llmft(
        "answer", f"model={model}", *SETTINGS, "generation.seed=7", "input=turns.jsonl", "format=json"
    )
    assert code == 0, err
    assert json.loads(out)["answer"] == second[3]["content"]


def contexts(*questions):
    return [(Turn("user", question),) for question in questions]
