"""Adapters and quantized bases on a CUDA device."""

import csv
import json

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit

from llmft.data.batching.collate import training_batch
from tests.conftest import cli

pytestmark = [pytest.mark.gpu, pytest.mark.cuda_only]
RUN = ("data=alpaca", "data.path=sample", "data.limit=30", "trainer=gpu", "data.batch_size=4", "trainer.log_every_n_steps=1", "questions=0",
       "evaluate.rows=4", "callbacks.samples.max_new_tokens=4", "report.write=false")  # fmt: skip
MODELS = ("tiny_t5", "tiny_llama")
QUANTISED = ("qlora", "fp4", "lora_8bit")


def on_gpu(batch):
    return {name: v.cuda() if isinstance(v, torch.Tensor) else v for name, v in batch.items()}


@pytest.mark.parametrize("peft", QUANTISED)
@pytest.mark.parametrize("model", MODELS)
def test_gradients_reach_every_matrix_after_an_evaluation_and_a_move(model, peft, built):
    data, module = built(f"model={model}", f"peft={peft}", "peft.targets=all-linear", "peft.dropout=0", "model.dropout=0",
                         "data=alpaca", "data.path=sample", "data.limit=8")  # fmt: skip
    batch = on_gpu(training_batch([[row] for row in data.encoded["train"][:4]], data.pad_id))
    module.cuda()
    losses = []
    for _ in range(2):
        module.train()
        module.zero_grad()
        total, _ = module.forward_pass.loss_sum(batch)
        total.backward()
        losses.append(float(total.detach()))
        gradients = {n: p.grad for n, p in module.named_parameters() if "lora_B" in n}
        assert all(g is not None and g.any() for g in gradients.values())
        module.eval()
        with torch.inference_mode():
            module.forward_pass.loss_sum(batch)
        module.cpu()  # as Lightning does at the end, and the evaluation takes it back
        module.cuda()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_qlora_computes_in_what_the_gpu_multiplies(model, built):
    data, module = built(
        f"model={model}",
        "model.dtype=auto",
        "peft=qlora",
        "trainer=gpu",
        "data=alpaca",
        "data.path=sample",
        "data.limit=8",
    )
    native = torch.cuda.is_bf16_supported(False)
    kinds = {layer.compute_dtype for layer in module.modules() if isinstance(layer, Linear4bit)}
    assert kinds == {torch.bfloat16 if native else torch.float32 if model == "tiny_t5" else torch.float16}
    rest = module.model.get_input_embeddings().weight.dtype
    assert rest == (torch.bfloat16 if native else torch.float32)
    batch = on_gpu(training_batch([[row] for row in data.encoded["train"][:4]], data.pad_id))
    module.cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=native):
        total, _ = module.forward_pass.loss_sum(batch)
    total.backward()
    gradients = [p.grad for n, p in module.named_parameters() if "lora_B" in n]
    assert gradients
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() and g.any() for g in gradients)


@pytest.mark.parametrize("peft", QUANTISED)
@pytest.mark.parametrize("model", MODELS)
def test_a_run_and_its_resume(model, peft, tmp_path):
    common = (f"model={model}", f"peft={peft}", "peft.targets=all-linear", *RUN)
    done = cli(*common, "trainer.max_epochs=2", "scheduler=constant", "output_dir=straight", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = cli(*common, "trainer.max_epochs=1", "scheduler=constant", "output_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = cli("resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [list(csv.DictReader((tmp_path / run / "metrics.csv").open())) for run in ("straight", "run")]
    losses = [[float(row["train/loss"]) for row in of if row["train/loss"]] for of in rows]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)  # CUDA kernels need not repeat bit for bit
    assert json.loads((tmp_path / "run" / "run.json").read_text())["peak_memory_mib"]["gpu"] > 0


@pytest.mark.parametrize("peft", ["lora", "qlora"])
def test_gradient_checkpointing_lowers_the_peak(peft, built):
    peaks = []
    for switch in ("false", "true"):
        data, module = built("model=tiny_llama", f"peft={peft}", f"model.gradient_checkpointing={switch}", "data=alpaca", "data.path=sample",
                             "data.limit=32")  # fmt: skip
        batch = on_gpu(training_batch([[row] for row in data.encoded["train"][:24]], data.pad_id))
        module.cuda().train()
        torch.cuda.reset_peak_memory_stats()
        module.forward_pass.loss_sum(batch)[0].backward()
        peaks.append(torch.cuda.max_memory_allocated())
        del module
        torch.cuda.empty_cache()
    assert peaks[1] < peaks[0]
