"""Model cards."""

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
