"""What the benchmark counts, in numbers by hand; the slow test runs it, llmft alone, on a tiny model."""

import importlib
import json
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import EncodedExample
from tests.conftest import ROOT


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of ``benchmarks/training``."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"training.{name}")

    return load


def row(ids: int, answer: int) -> EncodedExample:
    labels = [-100] * (ids - answer) + [1] * answer
    return EncodedExample([1] * ids, labels, ids - answer, answer, answer)


def told(found: dict[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in found.items()}


def test_a_padded_and_a_packed_batch_hold_the_same_rows(part):
    """Rows of 3 and 5 tokens with answers of 1 and 2."""
    contents, rows = part("turns").contents, [row(3, 1), row(5, 2)]
    held = {"rows": 2, "sources": 8, "targets": 0, "supervised": 3, "source_source": 34}
    held |= {"source_target": 0, "target_target": 0}
    padded = contents(training_batch([[one] for one in rows], 0), 2, seq2seq=False)
    assert told(padded) == held | {"slots": 10}
    packed = contents(training_batch([rows], 0), 2, seq2seq=False)
    assert told(packed) == held | {"slots": 8}
    # as TRL packs: positions that restart, no mask
    flat = {"input_ids": torch.ones(1, 8), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])}
    flat["labels"] = torch.tensor([[-100, -100, 1, -100, -100, -100, 1, 1]])
    assert told(contents(flat, 2, seq2seq=False)) == held | {"slots": 8}


def test_a_seq2seq_batch(part):
    """Sources of 3 and 5 tokens, targets of 4 and 1."""
    rows = [EncodedExample([1] * 3, [1] * 4, 3, 4, 4), EncodedExample([1] * 5, [1], 5, 1, 1)]
    held = {"rows": 2, "sources": 8, "targets": 5, "supervised": 5, "source_source": 34}
    held |= {"source_target": 17, "target_target": 17}
    for lines, slots in (([[one] for one in rows], 18), ([rows], 13)):
        found = part("turns").contents(training_batch(lines, 0), 2, seq2seq=True)
        assert told(found) == held | {"slots": slots}


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    numbers: dict[str, Any] = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**numbers, num_attention_heads=2, num_key_value_heads=1))


def counted(part: Any, model: Any) -> dict[str, float]:
    counter = part("flops").Counter(model.train())
    model(torch.ones(1, 3, dtype=torch.long))
    return counter.found()


def test_operations_of_full_fine_tuning(part):
    """A layer has q and o 8x8, k and v 8x4, and three of 8x12; the head has 8x50. Six each."""
    found = counted(part, llama())
    assert found["per_sources"] == 6 * 2 * (2 * 64 + 2 * 32 + 3 * 96)
    assert found["per_supervised"] == 6 * 400
    assert found["per_source_source"] == 6 * 2 * 8  # two layers, 12 d / 2 each


def test_operations_of_lora(part):
    """Frozen matrices need four, and the first q, k and v, whose input needs no gradient, two."""
    from peft import LoraConfig, get_peft_model

    model: Any = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    found = counted(part, model)
    base = 2 * (2 * 64 + 2 * 32 + 3 * 96)
    first = 64 + 2 * 32
    adapter = 2 * (6 * 16 + 6 * 16) - 2 * 16  # A and B of two layers, but the first A needs no gradient of its input
    assert found["per_sources"] == 4 * base - 2 * first + adapter
    assert found["per_supervised"] == 4 * 400


def test_operations_of_lora_on_the_shape_of_llama_3_8b(part):
    """Per layer q and o 4096x4096, k and v 4096x1024, three of 4096x14336; rank 16 on q, k, v and o. docs/gpu.md has the sums."""
    import transformers
    from peft import LoraConfig, get_peft_model

    numbers = part("shapes").SHAPES["llama3_8b_shape"].config[1] | {"num_hidden_layers": 2}  # of 32, which take longer
    lora = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    with torch.device("meta"):
        model: Any = get_peft_model(transformers.LlamaForCausalLM(transformers.LlamaConfig(**numbers)), lora)
        found = counted(part, model)

    def by_hand(layers: int) -> int:
        layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
        first = 4096 * 4096 + 2 * 4096 * 1024  # q, k and v of the first layer: no gradient of their input
        a, b = 4 * 16 * 4096, 16 * (2 * 4096 + 2 * 1024)
        return 4 * layers * layer - 2 * first + 6 * layers * (a + b) - 2 * 3 * 16 * 4096

    assert found["per_sources"] == by_hand(2)
    assert by_hand(32) == 27_948_351_488
    assert found["per_supervised"] == 4 * 4096 * 128256 == 2_101_346_304
    assert found["per_source_source"] == 12 * 2 / 2 * 4096


def test_operations_of_a_step(part):
    step = {"sources": 8, "targets": 0, "supervised": 3, "source_source": 34, "source_target": 0, "target_target": 0}
    per = dict.fromkeys((f"per_{name}" for name in step), 0.0)
    per |= {"per_sources": 100.0, "per_supervised": 10.0, "per_source_source": 2.0}
    assert part("flops").flops(step | per) == 800 + 30 + 68


def test_sides_that_differ_are_a_fault(part):
    """Another batch, or a loss more than 1e-3 away, is said and fails the run."""
    table = part("table")
    step = {"rows": 2, "slots": 8, "sources": 7, "targets": 0, "supervised": 3, "loss": 1.0}

    def side(**changes: float) -> Any:
        return type("Side", (), {"name": "one", "steps": [step | changes]})

    assert table.differences(side(), side(loss=1.0009)) == []
    assert "a loss differs by 0.0011" in table.differences(side(), side(loss=1.0011))[0]
    assert "their slots differ" in table.differences(side(), side(slots=9))[0]


def test_a_table_replaces_its_own(part, tmp_path):
    """Between its markers; another's stays, and a page without them is an error."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- /one -->\nb\n<!-- two -->\nkept\n<!-- /two -->\n")
    part("table").publish(page, "one", "| new |\n")
    assert page.read_text() == "a\n<!-- one -->\n| new |\n\n<!-- /one -->\nb\n<!-- two -->\nkept\n<!-- /two -->\n"
    with pytest.raises(SystemExit, match="has no <!-- three -->"):
        part("table").publish(page, "three", "")


def test_every_case_has_its_place_on_the_page(part):
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("performance.md", "gpu.md")]
    for name, case in part("cases").CASES.items():
        page = pages[case.gpu_only]
        assert f"<!-- {name} -->\n" in page
        assert f"<!-- /{name} -->" in page
        assert case.sides[0].of == "llmft"  # it counts the operations
        names = [side.name for side in case.sides]
        assert len(set(names)) == len(names)


def test_a_peer_as_it_comes_has_its_own_precision(part):
    """What the runner hands over; the other trainings of TRL's have what their case says."""
    cases, peers = part("cases").CASES, ROOT / "benchmarks" / "training" / "peers.py"
    assert '"bf16": False' in peers.read_text(encoding="utf-8")  # so that a case that is silent is in float32
    ours, theirs, plain = cases["causal_lora_default"].sides
    assert (ours.overrides, plain.arguments) == ((), {})
    assert theirs.arguments == {"bf16": None, "gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [("NVIDIA H200", 989.4), ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA A100-SXM4-80GB", 312.0),
     ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA L4", 121.0), ("NVIDIA A10", 125.0), ("A card of 2030", None)],
)  # fmt: skip
def test_the_peak_of_a_card(part, name, teraflops):
    assert part("peaks").peak_of(name) == (None if teraflops is None else teraflops * 1e12)


def test_utilization_is_useful_operations_by_the_published_peak(part):
    """989.4e12 operations in two seconds are half of an H200; 4e9 tokens of them 247,350 operations each."""
    side = type("Side", (), {"name": "llmft", "flops": 989.4e12, "wall": 2.0, "tokens": 4e9})
    line = part("table").utilization("NVIDIA H200", [side])
    assert "llmft 50.0% of 989 TFLOP/s" in line
    assert "llmft 2,000,000,000 tokens/s" in line
    assert "0.00 GFLOP per token" in line
    assert "no MFU" in part("table").utilization("A card of 2030", [side])


def test_without_units_for_bfloat16_all_sides_are_in_float32(part):
    cases = part("cases")
    for name in ("causal_lora_best", "causal_full_best", "seq2seq_best"):
        case = cases.CASES[name]
        assert cases.fitted(case, multiplies_bfloat16=True) is case
        ours, theirs = cases.fitted(case, multiplies_bfloat16=False).sides
        assert ours.overrides == ("data.batching=grouped",)
        assert theirs.arguments == {"train_sampling_strategy": "group_by_length"}
        assert (theirs.dtype, theirs.attention, ours.ceiling, theirs.ceiling) == (
            "float32",
            "sdpa",
            "float32",
            "float32",
        )


def test_a_peer_that_cannot_start_leaves_its_reason(part, monkeypatch, tmp_path):
    """Where a case says so; elsewhere it is an error."""
    monkeypatch.setattr(part("runner"), "UNSLOTH", tmp_path / "none")
    monkeypatch.setattr(part("runner"), "PEERS", tmp_path / "none")
    train = importlib.import_module("train")
    monkeypatch.setattr("sys.argv", ["train.py", "unsloth_8b", "--tables", str(tmp_path)])
    assert train.main() == 0
    told = (tmp_path / "unsloth_8b.md").read_text()
    assert "skipped. Unsloth, packed: it is not installed; `make unsloth` does that" in told
    monkeypatch.setattr("sys.argv", ["train.py", "packed_8b"])
    with pytest.raises(SystemExit, match="TRL, packed: it is not installed; `make bench` does that"):
        train.main()


@pytest.mark.slow
def test_trl_as_it_comes_is_trl_as_it_comes():
    """Of all keys of its config only those differ from its defaults that both sides must share."""
    peers = ROOT / ".venv-peers" / "bin" / "python"
    if not peers.exists():
        pytest.skip("the peers are not installed (make bench)")
    script = """
import json, sys
sys.path.insert(0, "benchmarks")
import trl
from training.cases import CASES
from training.peers import arguments
given = {"batch_size": 8, "lr": 2e-4, "device": "cpu", "arguments": CASES["causal_lora_default"].sides[1].arguments}
options = {"max_length": 1024, "packing": False}
ours = arguments(given | {"arguments": options | given["arguments"]}, trl.SFTConfig).to_dict()
theirs = trl.SFTConfig(use_cpu=True).to_dict()
print(json.dumps([key for key in theirs if ours[key] != theirs[key]]))
"""
    done = subprocess.run([peers, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shared = {"learning_rate", "lr_scheduler_type", "num_train_epochs", "seed", "per_device_train_batch_size"}
    where = {"output_dir", "logging_dir", "run_name", "report_to", "save_strategy", "dataloader_pin_memory"}
    assert set(json.loads(done.stdout.splitlines()[-1])) - shared - where == set()


@pytest.mark.slow
@pytest.mark.parametrize(("case", "model"), [("packing_causal", "tiny_llama"), ("packing_seq2seq", "tiny_t5")])
def test_packed_and_grouped_train_the_same_rows(case, model):
    """llmft alone, end to end: a whole command line in a process each, in turns."""
    command = [
        sys.executable,
        "benchmarks/train.py",
        case,
        f"--model={model}",
        "--steps=4",
        "--rounds=2",
        "--threads=1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^\| (llmft, \w+) \|(.*)\|$", done.stdout, re.MULTILINE)
    assert [name for name, _ in lines] == ["llmft, packed", "llmft, grouped"]
    values = [[float(value.strip(" %").replace(",", "")) for value in cells.split("|")] for _, cells in lines]
    assert all(number > 0 for line in values for number in (*line[:3], *line[4:]))
    assert "times the examples per second" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "rows"), [
    (("shared_prefix.py", "alpaca", "--steps=2", "--rounds=1"), ["alpaca"]),
    (("evaluation.py", "evaluate", "--rows=4", "--rounds=1", "--new-tokens=4"),
     ["transformers", "llmft without shared prefixes", "llmft"]),
])  # fmt: skip
def test_both_sides_compute_the_same(arguments, rows):
    """A loss or an answer that differs ends them with an error."""
    file, *rest = arguments
    command = [sys.executable, f"benchmarks/{file}", *rest, "--model=tiny_llama"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\| ([a-z][\w ]+) \|.*\d", done.stdout, re.MULTILINE) == rows
