"""``trainer.deterministic=true`` on a CUDA device: the same bits again, also after a resume."""

import csv

import pytest
import torch

from llmft.generation.sampling import Sampling, draw_in_integers, sample_tokens
from tests.conftest import cli
from tests.support.digests import digests

pytestmark = [pytest.mark.gpu, pytest.mark.cuda_only]
# sampled answers, because sampling needs what CUDA has in no deterministic form
RUN = ("data=alpaca", "data.path=sample", "data.limit=40", "trainer=gpu", "trainer.deterministic=true", "data.batch_size=4", "trainer.log_every_n_steps=1",
       "evaluate.rows=4", "questions=2", "generation=sample", "generation.temperature=1.5", "generation.max_new_tokens=8", "callbacks.samples.max_new_tokens=8",
       "peft.dropout=0.1", "model.dropout=0.1", "scheduler=constant", "report.write=false", "logger=none")  # fmt: skip
FILES = ("model/adapter_model.safetensors", "samples.jsonl", "predictions.jsonl")
KINDS = [
    pytest.param(("data.batching=grouped",), id="rows"),
    pytest.param(("data.batching=packed",), id="packed"),
    pytest.param(("data.batching=grouped", "model.attention=eager", "trainer.precision=32-true"), id="eager-float32"),
]


def trained(folder, name, *overrides):
    done = cli(*overrides, f"output_dir={name}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return found(folder / name)


def found(run):
    with (run / "metrics.csv").open() as rows:
        metrics = [
            {key: value for key, value in row.items() if "per_second" not in key} for row in csv.DictReader(rows)
        ]
    return metrics, digests(*(run / file for file in FILES))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_two_runs_and_a_resumed_one_have_the_same_bits(model, kind, tmp_path):
    run = (f"model={model}", "peft=lora", *RUN, *kind)
    first = trained(tmp_path, "first", *run, "trainer.max_epochs=2")
    assert trained(tmp_path, "second", *run, "trainer.max_epochs=2") == first
    trained(tmp_path, "resumed", *run, "trainer.max_epochs=1")
    done = cli("resume=resumed", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "resumed") == first


def test_a_token_is_the_one_of_the_cpu_alone_and_in_a_batch():
    torch.manual_seed(0)
    logits, numbers = torch.randn(64, 150_000), torch.rand(64, dtype=torch.float64).tolist()
    on_gpu = draw_in_integers(logits.cuda(), numbers).cpu()
    assert all(torch.equal(draw_in_integers(logits.cuda(), numbers).cpu(), on_gpu) for _ in range(5))
    alone = torch.cat(
        [draw_in_integers(row[None].cuda(), [number]) for row, number in zip(logits, numbers, strict=True)]
    )
    assert torch.equal(alone.cpu(), on_gpu)
    # exp may round otherwise than on a CPU, which moves a token where the number is within 1e-7 of an edge
    assert (draw_in_integers(logits, numbers) == on_gpu).float().mean() > 0.9


def test_sampling_waits_for_the_device_no_more_than_for_one_number_per_row():
    samplings = {row: Sampling({"temperature": 0.7}, seed=1, prompt=[row]) for row in range(8)}
    ids, scores = torch.ones(8, 4, dtype=torch.long).cuda(), torch.randn(8, 1000).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample_tokens(samplings, ids, scores)
    finally:
        torch.cuda.set_sync_debug_mode("default")
