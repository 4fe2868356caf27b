"""Model cards."""

from typing import Any

from huggingface_hub import ModelCard

from llmft.export import model_card
from tests.support.report_runs import MARKED, shown


def test_nothing_in_a_model_card_can_act(load_config):
    cfg = load_config("data=alpaca", "model=tiny_gpt2")
    hostile = {"name": MARKED, "path": MARKED, "system": MARKED}
    groups = {name: getattr(cfg, name).model_copy(update=hostile) for name in ("model", "data", "peft")}
    cfg = cfg.model_copy(update=groups)  # not validated, as names of other versions may be
    record = {"data": {"source": MARKED, "sha256": MARKED, "dropped": {MARKED: 1}, "split": {MARKED: 1}}, "metrics": {"steps": MARKED}, "versions": {MARKED: MARKED}}  # fmt: skip
    scores = {"rows": 1, "of": 2, "split": MARKED, "headline": MARKED, "scores": {MARKED: {"base": 1.0, "tuned": 2.0, "verdict": MARKED}}}  # fmt: skip
    for known in (scores, None):
        text = model_card.card(cfg, record, known, "merged")
        found = shown(text.partition("\n---\n")[2])  # behind the front matter, which is JSON
        assert not {"script", "img", "a"} & set(found.tags)
        assert any("<script>alert(1)</script>" in t for t in found.texts)


def test_the_base_is_named_by_its_hub_id_with_what_was_done_to_it(load_config):
    cfg = load_config("model=smollm2_135m")
    text = model_card.card(cfg, {}, None, "adapter")
    assert 'base_model: "HuggingFaceTB/SmolLM2-135M-Instruct"' in text
    assert 'library_name: "peft"' in text
    assert "weights rounded to 4 bits (Q4_1) before we got them" in in_text(text)
    assert 'AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")' in text
    other = load_config("model=smollm2_135m", "model.path=/models/mine", "model.gguf_file=null")
    assert "SmolLM2-135M-Instruct" not in model_card.card(other, {}, None, "adapter")
    pinned = load_config("model=flan_t5_small", "model.revision=v1.0", "model.new_tokens=[ROAD]")
    code = model_card.card(pinned, {}, None, "adapter", hub="me/mine")
    assert 'AutoModelForSeq2SeqLM.from_pretrained("google/flan-t5-small", revision="v1.0")' in code
    assert "model.resize_token_embeddings(len(tokenizer))" in code
    assert 'folder = "me/mine"\n' in code


def test_scores_are_a_model_index_that_the_hub_reads(load_config):
    scores = {"rows": 9, "of": 9, "split": "test", "headline": "x",
              "scores": {"chrf": {"tuned": 20.5}, "bleu": {"tuned": None}}}  # fmt: skip
    text = model_card.card(load_config("model=tiny_t5", "data=alpaca"), {}, scores, "merged", name="Mine: it's")
    data: Any = ModelCard(text).data
    (found,) = data.eval_results
    assert (found.task_type, found.dataset_name, found.dataset_split) == ("text-generation", "alpaca", "test")
    assert (found.metric_type, found.metric_value) == ("chrf", 20.5)
    assert data.model_name == "Mine: it's"


def in_text(markdown: str) -> str:
    """Markdown without its escapes."""
    return markdown.replace("\\", "")
