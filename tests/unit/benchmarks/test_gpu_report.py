"""What a run on a GPU left becomes the tables of docs/gpu.md."""

import importlib
import shutil

import pytest

from tests.conftest import ROOT

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.gpu.test_numbers" name="test_losses[tiny_t5]" time="3.6"><properties><property name="float32" value="2e-7"/></properties></testcase>
<testcase classname="tests.gpu.test_numbers" name="test_losses[tiny_llama]" time="2.2"><failure message="no"/></testcase>
<testcase classname="tests.gpu.test_scale" name="test_two" time="0.1"><skipped message="there is one GPU"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu_report")


def test_every_section_is_written(report, tmp_path):
    page = tmp_path / "page.md"
    shutil.copy(ROOT / "docs" / "gpu.md", page)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "tests_numbers.xml").write_text(JUNIT)
    (folder / "machine.txt").write_text("2027-01-01: NVIDIA H200.\n")
    (folder / "packed_8b.md").write_text("| measured |\n")
    (folder / "summary.txt").write_text(
        "FAILED 2 bench_packed_8b rc=1 9 s\nok 2 bench_packed_8b rc=0 90 s\nFAILED 4 bench_causal_lora_best rc=124 110 s\n"
        "FAILED 1 numbers rc=1 8 s\nskipped 5 gpu_steps: no time\n"
    )
    names = ["causal_lora_best", "gpu_machine", "gpu_steps", "gpu_tests", "packed_8b"]
    assert report.write(folder, page) == names
    text = page.read_text()
    assert "<!-- gpu_machine -->\nRun on 2027-01-01: NVIDIA H200.\n<!-- /gpu_machine -->" in text
    assert "1 passed, 1 failed, 1 skipped, 1 of them: there is one GPU." in text
    assert "| `test_numbers::test_losses[tiny_t5]` | passed | float32 2e-7 | 4 |" in text
    assert "| `test_numbers::test_losses[tiny_llama]` | **failed** |  | 2 |" in text
    assert "<!-- packed_8b -->\n| measured |\n<!-- /packed_8b -->" in text
    assert "No result: out of time after 110 s; `bench_causal_lora_best.txt` has its output." in text
    assert "Not run: no time was left." in text
    assert "QLoRA beside LoRA: not run." in text  # nothing was written for it


def test_every_table_of_the_script_has_its_place_on_the_page():
    script, page = ((ROOT / name).read_text() for name in ("benchmarks/gpu_first_run.sh", "docs/gpu.md"))
    benches = {line.split("bench ")[n].split()[1] for line in script.splitlines() if "bench " in line and "--model" in line
               for n in range(1, line.count("bench ") + 1)}  # fmt: skip
    assert {"packed_8b", "qlora_8b", "causal_lora_best"} <= benches
    for name in benches | {"gpu_tests", "gpu_steps", "gpu_machine"}:
        assert f"<!-- {name} -->\n" in page
        assert f"<!-- /{name} -->" in page
