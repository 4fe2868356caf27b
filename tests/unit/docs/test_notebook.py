"""docs/notebook.ipynb as it is stored: its training composes; its outputs, if it has some, are of one run, and name no machine."""

import ast
import json
import re

from llmft.config.schema import TrainConfig
from llmft.config.validate import check
from tests.conftest import ROOT

CELLS = [
    cell
    for cell in json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


def source(cell) -> str:
    return "".join(cell["source"])


def test_its_training_passes_the_checks(load):
    calls = [node for node in ast.walk(ast.parse(source(CELLS[0]))) if isinstance(node, ast.Call)]
    (overrides,) = (ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "train")
    check(load(*overrides), TrainConfig)


def test_its_cells_were_run_in_order_without_errors_and_warnings():
    counts = [cell["execution_count"] for cell in CELLS]
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert counts == list(range(1, len(CELLS) + 1)) or (set(counts) == {None} and not outputs)
    assert {output["output_type"] for output in outputs} <= {"display_data", "execute_result", "stream"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} <= {"stdout"}


def test_its_outputs_are_small_and_name_no_machine():
    text = json.dumps([cell["outputs"] for cell in CELLS])
    assert len(text) < 300_000
    assert not re.search(r"(?<!\w)/(?:home|root|tmp|work|usr|opt|Users)/", re.sub(r'"image/png": "[^"]*"', "", text))
