"""What a sweep keeps of its base: read only where all that decides it is the same, and never a damaged file."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from llmft.data.tokenization.codec import EncodedExample
from llmft.evaluation import base_cache
from llmft.evaluation.base_cache import BaseCache, base_ingredients, digest, fingerprint
from llmft.models.attention.kernels import Kernels
from tests.unit.models.peft.test_lora_recompute import adapted

ROW = EncodedExample([1, 2, 3], [-100, -100, 3], prompt_length=2, answer_length=1, supervised=1)
SETTINGS = [{"max_new_tokens": 4, "do_sample": False}, "auto", 4096, []]


@pytest.fixture(scope="module")
def model():
    return adapted()


@pytest.fixture
def parts(model):
    """The arguments of ``base_ingredients``."""
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 1}, pad_token_id=0)
    codec = SimpleNamespace(tokenizer=tokenizer, stop_ids=(2,), template=SimpleNamespace(saved="{{ text }}"))
    forward = SimpleNamespace(model=model, kernels=Kernels())
    return SimpleNamespace(forward=forward, codec=codec, rows=[ROW], settings=SETTINGS, device="cpu")


def key(parts):
    return digest(base_ingredients(**vars(parts)))


CHANGES = {
    "row": lambda p, _: p.rows.append(ROW),
    "prompt": lambda p, _: setattr(p, "rows", [replace(ROW, input_ids=[1, 4, 3])]),
    "reference": lambda p, _: setattr(p, "rows", [replace(ROW, labels=[-100, -100, 4])]),
    "where the prompt ends": lambda p, _: setattr(p, "rows", [replace(ROW, prompt_length=1)]),
    "max tokens": lambda p, _: setattr(p, "settings", [{**SETTINGS[0], "max_new_tokens": 5}, *SETTINGS[1:]]),
    "dtype on request": lambda p, _: setattr(p, "settings", [SETTINGS[0], "float32", *SETTINGS[2:]]),
    "batches": lambda p, _: setattr(p, "settings", [*SETTINGS[:2], 2048, []]),
    "few-shot prompts": lambda p, _: setattr(p, "settings", [*SETTINGS[:3], [[1, 2]]]),
    "kernels": lambda p, _: setattr(p.forward, "kernels", Kernels(varlen=True)),
    "flex": lambda p, _: setattr(p.forward, "kernels", Kernels(flex=True)),
    "flash": lambda p, _: setattr(p.forward, "kernels", Kernels(flash=True)),
    "tokenizer": lambda p, _: setattr(p.codec.tokenizer, "get_vocab", lambda: {"b": 1}),
    "stop token": lambda p, _: setattr(p.codec, "stop_ids", (3,)),
    "template": lambda p, _: setattr(p.codec.template, "saved", "{{ other }}"),
    "config": lambda p, m: m.setattr(p.forward.model.config, "rms_norm_eps", 1e-3),
    "versions": lambda _, m: m.setattr(base_cache, "versions", lambda: {"torch": "0"}),
    "source": lambda _, m: m.setattr(base_cache, "git_revision", lambda: "other"),
    "machine": lambda _, m: m.setattr(base_cache, "hardware_name", lambda _: "another CPU"),
    "threads": lambda _, m: m.setattr(torch, "get_num_threads", lambda: 99),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_an_answer_decides_the_name_of_the_file(what, parts, monkeypatch):
    before = key(parts)
    assert key(parts) == before
    CHANGES[what](parts, monkeypatch)
    assert key(parts) != before


def test_other_weights_of_the_base_have_other_answers(parts):
    before = key(parts)
    parts.forward.model = adapted()
    assert key(parts) == before
    parts.forward.model.get_input_embeddings().weight.data[0, 0] += 1
    assert key(parts) != before


def test_the_weights_of_the_base_count_and_those_of_its_adapter_do_not():
    model = adapted()
    before = fingerprint(model)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 1
    assert fingerprint(model) == before
    last = [weight for name, weight in model.named_parameters() if "lora_" not in name][-1]
    last.data.view(-1)[-1] += 1
    assert fingerprint(model) != before


def test_other_layers_of_an_adapter_or_none_are_the_same_base_and_another_dtype_is_another():
    model = adapted()
    before = fingerprint(model)
    assert fingerprint(model.unload()) == before
    assert fingerprint(adapted(torch.float32)) != before


def computing(results):
    def compute():
        results.append({"rows": [(("an answer", True, 3, None), 1.25, 2)], "few_shot": None, "top": torch.ones(2)})
        return results[-1]

    return compute


def test_the_second_job_reads_what_the_first_has_computed(tmp_path, caplog):
    caplog.set_level("INFO")
    made = []
    BaseCache(tmp_path, "0").get("base answers: 1 of 1", ["a"], computing(made))
    found = BaseCache(tmp_path, "1").get("base answers: 1 of 1", ["a"], computing(made))
    assert len(made) == 1
    assert found["rows"] == made[0]["rows"]
    assert torch.equal(found["top"], made[0]["top"])
    assert "base answers: 1 of 1 from job 0 (the same weights, rows and settings)" in caplog.text
    BaseCache(tmp_path, "2").get("base answers: 1 of 1", ["b"], computing(made))
    assert len(made) == 2


def test_a_torn_file_is_computed_again_and_one_of_another_key_too(tmp_path):
    made = []
    cache = BaseCache(tmp_path, "0")
    cache.get("x", ["a"], computing(made))
    (file,) = (tmp_path / ".base").glob("*.pt")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    cache.get("x", ["a"], computing(made))
    assert len(made) == 2
    file.rename(file.with_name(f"{digest(['x', 'b'])}.pt"))
    cache.get("x", ["b"], computing(made))
    assert len(made) == 3
    cache.get("x", ["b"], computing(made))
    assert len(made) == 3


def test_a_folder_that_cannot_be_written_to_only_costs_time(tmp_path):
    (tmp_path / ".base").write_text("a file")
    made = []
    for _ in range(2):
        assert BaseCache(tmp_path, "0").get("x", ["a"], computing(made)) is made[-1]
    assert len(made) == 2
