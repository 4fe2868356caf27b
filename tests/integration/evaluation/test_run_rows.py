"""Which rows an evaluation of a run scores."""

from llmft.evaluation.run_rows import rows_of
from llmft.models.backbone.open import Backbone
from llmft.runs.record import write_record
from tests.conftest import chat_row, write_rows


def test_all_rows_of_another_file_also_of_a_run_that_trained_on_a_part(load_config, tmp_path):
    write_record(tmp_path, {})
    file = write_rows(tmp_path / "other.jsonl", *(chat_row(f"question {n}", f"answer {n}") for n in range(8)))
    settings = ("data.train_fraction=0.5", "data.near_duplicates=drop", "data.split={test: 0.25, val: 0.25}")
    trained = load_config("model=tiny_gpt2", "data=academic", "data.path=sample", *settings)
    data = rows_of(load_config(f"run={tmp_path}", f"data.path={file}", command="evaluate"), tmp_path, trained)
    data.encode(Backbone.open(trained).codec)
    assert sorted(data.indices["train"].tolist()) == [0, 1, 2, 3, 4, 5, 6, 7]
