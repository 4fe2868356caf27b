"""Task files of somebody else: code is refused, and data is found beside them."""

import sys

import pytest

from llmft.evaluation.suites import tasks
from llmft.evaluation.suites.task_files import check_files, with_local_data
from llmft.utils.errors import UserError

PLAIN = "task: quiz\ndataset_path: json\ndoc_to_text: '{{question}}'\n"


def refused(folder):
    with pytest.raises(UserError) as error:
        check_files(folder)
    return str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "process_docs: !function os.system",
        "metric_list: [{metric: !function utils.score}]",
        "class: !<!function> utils.Task",
        "doc_to_text: !!python/name:os.system ",
        "fewshot_config: {samples: !function utils.rows}",
    ],
)
def test_code_in_a_task_file_is_refused_with_its_place(tmp_path, line):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "quiz.yaml").write_text(f"{PLAIN}{line}\n")
    message = refused(tmp_path)
    assert "quiz.yaml:4: " in message
    assert "allow_targets=[suite_code]" in message


def test_a_tag_under_another_handle_is_refused(tmp_path):
    (tmp_path / "quiz.yaml").write_text(f"%TAG !f! !func\n---\n{PLAIN}process_docs: !f!tion os.system\n")
    assert "!function os.system: runs Python code" in refused(tmp_path)


def test_included_files_are_looked_at_wherever_they_are(tmp_path):
    outside, tasks_folder = tmp_path / "outside.yaml", tmp_path / "tasks"
    tasks_folder.mkdir()
    outside.write_text("process_docs: !function os.system\ninclude: tasks/quiz.yaml\n")
    (tasks_folder / "quiz.yaml").write_text(f"{PLAIN}include: [../outside.yaml]\n")
    assert "outside.yaml:1: " in refused(tasks_folder)


def test_what_is_no_folder_of_task_files(tmp_path):
    assert "no such folder" in refused(tmp_path / "none")
    assert "holds no task file" in refused(tmp_path)
    (tmp_path / "broken.yaml").write_text("task: [")
    assert "broken.yaml: cannot be read" in refused(tmp_path)
    (tmp_path / "broken.yaml").write_text(PLAIN + "description: &a [x, x]\nmetadata: {a: [*a, *a]}\n")
    check_files(tmp_path)


def test_data_files_are_beside_the_task_file(tmp_path):
    options = {"data_files": {"test": "rows.jsonl", "train": ["a.jsonl", "/b.jsonl", "https://x/c.jsonl"]}, "x": 1}
    found = with_local_data({"task": "quiz", "dataset_kwargs": options}, tmp_path)
    assert found["dataset_kwargs"] == {
        "data_files": {
            "test": f"{tmp_path}/rows.jsonl",
            "train": [f"{tmp_path}/a.jsonl", "/b.jsonl", "https://x/c.jsonl"],
        },
        "x": 1,
    }
    assert with_local_data({"task": "quiz"}, tmp_path) == {"task": "quiz"}


def test_without_the_harness_there_is_one_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r'pip install "llmft\[lm-eval\]"'):
        tasks.version()
