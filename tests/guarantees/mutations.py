"""Does each guarantee's test fail when the fault that it guards against is put in? ``python tests/guarantees/mutations.py``

Each fault is one edit of a copy of the source; its test must fail there (and passes on the code as it is, which the test
suite shows). Exits with 1 if a fault survives, or if an edit no longer fits the source.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests.support.mutation_runner import LIMIT, Fault, misfit, preload, run_all  # noqa: E402

HERE = "tests/guarantees"

ACCUMULATION = f"{HERE}/test_accumulation_changes_nothing.py::test_accumulation_changes_nothing[tiny_t5-lora]"
WEIGHTS = f"{HERE}/test_a_weight_is_a_count.py"
ENCODER_DECODERS = "tests/integration/models/test_encoder_decoders.py"
PACKING = f"{HERE}/test_packing_changes_nothing.py -k packing_changes_nothing"
BATCHING = f"{HERE}/test_batching_changes_nothing.py::test_batching_changes_nothing"
LABELS = f"{HERE}/test_only_answers_are_trained.py::test_the_answer_and_one_stop_token_are_trained_and_nothing_else"
TURNS = f"{HERE}/test_only_answers_are_trained.py::test_of_a_conversation_the_last_turn_is_trained_or_every_assistant_turn[byte-gpt2-plain]"
TEMPLATES = f"{HERE}/test_every_chat_template.py"
RESUME = f"{HERE}/test_resume_is_exact.py::test_resume_is_exact[llama-full-packed]"
MODES = f"{HERE}/test_training_is_in_train_mode.py"
GUARDS = f"{HERE}/test_a_guard_halts_what_is_broken.py"
HEALTHY = f"{HERE}/test_a_guard_never_halts_the_healthy.py"
SAME = f"{HERE}/test_answers_are_the_same_everywhere.py"
PLAIN = f"{HERE}/test_plain_lightning_trains_the_same.py"
SHIP = "tests/integration/commands/test_export.py"
SPEED = f"{HERE}/test_speed_changes_no_number.py"
FLASH = "tests/unit/models/attention/test_flash.py"
FLEX = "tests/unit/models/attention/test_flex.py"
LIGER = "tests/unit/models/test_liger.py"
COMPILED = "tests/unit/models/test_compiled.py"
PREFIXES = f"{HERE}/test_shared_prefixes_change_nothing.py"
HEAD = "tests/unit/models/test_chunked_head.py -k plain_formula"
FLOAT16 = "tests/unit/models/test_float16.py"
TRANSFORMERS4 = "tests/integration/models/test_transformers4.py"
DAMAGED = "tests/integration/runs/test_damaged_checkpoints.py -k every_damage"
UNTRUSTED = "tests/integration/models/test_untrusted_models.py"
ATOMIC = "tests/robustness/test_atomic_writes.py"
PASSPORT = "tests/unit/export/test_passport.py"
GGUF = "tests/unit/export"
WRITES = "tests/unit/config/test_write_paths.py"
VERDICT = f"{HERE}/test_a_verdict_claims_what_was_measured.py"
BASE = "tests/unit/evaluation/test_base_cache.py"
RANKING = "tests/unit/report/leaderboard/test_ranking.py"
REFEREE = "tests/integration/training/test_referee.py"
KNOWN_PREFIXES = "tests/integration/generation/test_prefixes.py"
PREFIX_CACHE = "tests/unit/generation/test_prefix_cache.py"
EXPORT = f"{HERE}/test_the_exported_model_is_the_trained_one.py::test_tokenizer_prompt_and_generation_settings_travel_along[tiny_gpt2]"

FAULTS = [
    # 1 accumulation
    Fault("micro-batches are averaged", "models/module.py",
          "factor = self.trainer.accumulate_grad_batches * self.trainer.world_size / _or_one(tokens)", "factor = 1.0", ACCUMULATION),
    Fault("the last micro-batch is logged", "models/module.py", "        self.train_sums.add(total, tokens)\n",
          "        self.train_sums = TokenLoss()\n        self.train_sums.add(total, tokens)\n", ACCUMULATION),
    Fault("the schedule counts micro-batches", "models/schedule.py", "-(-batches // accumulate) * max_epochs", "batches * max_epochs",
          ACCUMULATION),
    Fault("float16 sees the gradients of a sum", "models/float16.py", "return total * self.factor", "self.factor = 1.0\n        return total", FLOAT16),
    Fault("the schedule moves on a skipped step", "models/module.py", "if self.float16.overflowed:", "if False:", FLOAT16),
    Fault("weights are ignored", "models/forward.py", 'if "weights" in batch else None', 'if "weight" in batch else None', WEIGHTS),
    # 2 ranks
    Fault("a filler's labels are trained", "data/batching/collate.py", "self.rows[row] if row >= 0 else _without_labels(self.rows[~row])", "self.rows[max(row, ~row)]",
          f"{HERE}/test_ranks_change_nothing.py", 16),
    Fault("all ranks take the same rows", "data/batching/sampler.py", "range(self.start * self.ranks + self.rank,", "range(self.start * self.ranks,",
          "tests/unit/data/batching/test_sampler.py"),
    # 3 packing
    Fault("positions do not restart in a packed sequence", "models/attention/packing.py", "    return index - torch.where", "    return index + 0 * torch.where", f"{PACKING} -k sdpa"),
    Fault("packed targets see the example before", "models/attention/packing.py", "        seen = seen & torch.ones_like(seen[0]).tril()",
          "        seen = torch.ones_like(seen).tril()", f"{PACKING} -k t5"),
    Fault("the cross attention sees all sources", "models/seq2seq.py", "block_mask(targets, sources, dtype)", "block_mask(targets * 0, sources * 0, dtype)",
          f"{PACKING} -k t5"),
    Fault("decoder starts of packed examples are missing", "models/seq2seq.py", 'ids[row_starts(batch["label_rows"])]', "ids[:0]", f"{PACKING} -k t5"),
    Fault("absolute positions go on in the next packed example", "models/attention/restart_positions.py", "positions_in_rows(rows).masked_fill(rows < 0, 0)",
          "torch.arange(rows.shape[1]).expand_as(rows)", f"{ENCODER_DECODERS} -k bart"),
    Fault("labels do not begin with the language code", "data/tokenization/codec.py", "[*self.target_frame.forced, *target, self.stop_id]", "[*target, self.stop_id]", f"{ENCODER_DECODERS} -k nllb"),
    Fault("an example predicts the next example's first token", "models/causal.py", "row_starts(batch[\"rows\"])[:, 1:]", "row_starts(batch[\"rows\"])[:, 1:] & False",
          f"{HERE}/test_packing_changes_nothing.py -k all_trained"),
    Fault("targets are paired with sources by their number in the batch", "models/attention/varlen.py", "list(map(len, queries.lengths)) == list(map(len, keys.lengths))",
          "queries.layout and keys.layout and queries.layout.shape[0] == keys.layout.shape[0]", f"{HERE}/test_packing_changes_nothing.py -k one_side"),
    Fault("packing is not checked", "training/fit.py", "            difference = parts.module.forward_pass.check_packing(rows, data.pad_id)", "            difference = 0.0",
          f"{HERE}/test_packing_changes_nothing.py -k refuses", 7),
    Fault("FlashAttention lets tokens see later ones", "models/attention/flash.py", "options = Options(causal,", "options = Options(False,", f"{FLASH} -k Llama-torch"),
    Fault("a decoder attends to itself by the lengths of its sources", "models/attention/flash.py", "    if causal:  # in a decoder", "    if False:  # in a decoder",
          f"{FLASH} -k Bart-torch"),
    Fault("a windowed model attends to all of an example under FlashAttention", "models/attention/flash.py", 'kwargs.get("sliding_window")', "None", f"{FLASH} -k Mistral-torch"),
    Fault("flex attention computes scores of two examples", "models/attention/key_ranges.py", "first, last = offsets[1][example], ", "first, last = offsets[1][example * 0], ",
          f"{FLEX} -k segment_ids"),
    Fault("a block of two examples is computed whole", "models/attention/key_ranges.py", "whole = (least <= begin) & (end <= most)", "whole = (low <= begin) & (end <= high)",
          f"{FLEX} -k segment_ids"),
    Fault("flex attention is taken without a comparison", "models/attention/flex.py", "    flex_kernel.compare(heads, scores)\n", "", f"{FLEX} -k something_else", 2),
    Fault("Liger's kernels compute answers too", "models/liger.py", "torch.is_grad_enabled() and value", "value", f"{LIGER} -k training_steps"),
    Fault("Liger's kernels are taken without a comparison", "models/liger.py", "if _computes_the_same(module, part, model.dtype)", "if True", f"{LIGER} -k left_alone"),
    Fault("other logits with Liger's kernels are trusted", "models/first_batch.py", "bool(found) and _same_with_gradients(forward, first)", "bool(found)", f"{LIGER} -k other_logits"),
    Fault("other gradients of compiled layers are trusted", "models/compiled.py", "[[x.detach() for x in outputs], gradients[: len(inputs)], gradients[len(inputs) :]]",
          "[[x.detach() for x in outputs]]", f"{COMPILED} -k other_gradients"),
    Fault("answers and validation compile layers too", "models/compiled.py", "if not (layer.training and torch.is_grad_enabled()):", "if False:", f"{COMPILED} -k training_steps"),
    # 4 batching
    Fault("means of batches are averaged", "models/loss.py", "        self.nats = self.nats + float64(nats.detach())\n        self.tokens = self.tokens + float64(tokens)",
          "        self.nats = self.nats + float64(nats.detach()) / tokens\n        self.tokens = self.tokens + 1", f"{BATCHING}[tiny_t5]"),
    Fault("the encoder attends to padding", "models/seq2seq.py", 'batch["attention_mask"] if not varlen', 'batch["attention_mask"] * 0 + 1 if not varlen', f"{BATCHING}[tiny_t5]"),
    # 5 labels
    Fault("labels are shifted twice", "models/causal.py", 'targets[:, :-1] = batch["labels"][:, 1:]', 'targets[:, :-2] = batch["labels"][:, 2:]', f"{BATCHING}[tiny_llama]"),
    Fault("pads are trained", "data/batching/collate.py", '"labels": _pad(labels, IGNORED)', '"labels": _pad(labels, pad_id)', "tests/unit/data/batching/test_collate.py"),
    Fault("padding is found by id", "data/batching/collate.py", '_mask([len(ids_) for ids_ in ids], padded.shape[1])', "(padded != pad_id).long()", "tests/unit/data/batching/test_collate.py"),
    Fault("no stop token", "data/tokenization/causal.py", "return start, ids[len(start) :], False", "return start, ids[len(start) : -1], False", f"{LABELS}[byte-gpt2-plain]"),
    Fault("the prompt is trained too", "data/tokenization/causal.py", 'if self.train_on == "all" else', 'if self.train_on != "" else', f"{LABELS}[byte-gpt2-plain]"),
    Fault("control tokens in text are control tokens", "data/tokenization/tokenizer.py", "        if not split_controls or not self._names_control(text):\n",
          "        if True:\n            return self._tokenized([text], split_controls=False)[0]\n        if not split_controls or not self._names_control(text):\n", f"{LABELS}[byte-gpt2-plain]"),
    Fault("control tokens are pieces of a Unigram model", "data/tokenization/tokenizer.py", "letters = self.tokenizer.convert_tokens_to_ids(list(written))", "letters = [token]", f"{LABELS}[unigram-llama-plain]"),
    Fault("the tokenizer adds a second BOS", "data/tokenization/tokenizer.py", "encode_batch_fast(texts, add_special_tokens=False)", "encode_batch_fast(texts, add_special_tokens=True)", f"{LABELS}[unigram-llama-plain]"),
    Fault("earlier turns are trained without their stop", "data/tokenization/causal.py", "labels[len(start) : end] = tail",
          "labels[len(start) : end - 1] = tail[:-1]", TURNS),
    Fault("the lead of an answer is spelled out", "data/tokenization/causal.py", "        rest, continues = self._rest(prompt, reply)\n",
          "        rest, continues = self._rest(prompt, reply)\n        rest = (''.join(rest[:-2]), *rest[-2:])\n        prompt = Prompt((*prompt.pieces[:-1], prompt.pieces[-1]), prompt.context, prompt.tools)\n", f"{TEMPLATES}::test_each_row_is_exact_or_refused[qwen3]"),
    Fault("reasoning gets a second think block", "data/tokenization/traits.py", "        if turn.reasoning is not None or not self.tags or", "        if True or turn.reasoning is not None or not self.tags or", f"{TEMPLATES}::test_each_row_is_exact_or_refused[qwen3]"),
    Fault("a header is trained", "data/tokenization/causal.py", "else [IGNORED] * len(start)) + tail", "else [IGNORED] * (len(start) - 2) + start[-2:]) + tail", f"{TEMPLATES}::test_each_row_is_exact_or_refused[qwen2_5]"),
    Fault("the second stop token is missing", "data/tokenization/layout.py", "if control in stops]", "if control in ()]", f"{TEMPLATES}::test_each_row_is_exact_or_refused[cohere2]"),
    Fault("the rejected answer is trained", "data/row_shapes.py", 'text_of(row, "response_j")', 'text_of(row, "response_k")', f"{HERE}/test_only_answers_are_trained.py -k rejected"),
    # 6 resume
    Fault("dropout draws anew after a resume", "callbacks/checkpoints.py", "            set_rng_states(", "            (lambda state: None)(", RESUME, 9),
    Fault("a resumed epoch starts at its first batch", "data/datamodule.py", 'resume_at(position["epoch"], position["batches"])', 'resume_at(position["epoch"], 0)', RESUME, 9),
    Fault("a checkpoint is written in place", "utils/files.py", "    unfinished = _temporary(file, shared=shared)\n", "    unfinished = file\n", f"{HERE}/test_resume_is_exact.py -k full_disk"),
    Fault("optimizer states of a checkpoint are not checked", "runs/checkpoint_check.py", "    yield from optimizer_faults(checkpoint, expected)\n", "", DAMAGED),
    Fault("an adapter may hold NaN", "models/backbone/untrusted.py", "        if not weight.isfinite().all():\n", "        if False:\n", f"{UNTRUSTED} -k NaN"),
    Fault("model/ is not flushed before it has its name", "utils/files.py", "            sync_tree(unfinished)\n", "            pass\n", ATOMIC),
    Fault("model/ is removed before the new one is in place", "utils/files.py", "    if _exchange(unfinished, folder):\n        return\n", "    shutil.rmtree(folder)\n    unfinished.rename(folder)\n    return\n", ATOMIC),
    Fault("a signal stops without saving", "callbacks/interruption.py", "            self.checkpoints.save(trainer)\n", "", f"{HERE}/test_resume_is_exact.py -k between_two_steps"),
    Fault("loader workers outlive a run that was killed", "data/datamodule.py", "worker_init_fn=end_with_parent,", "worker_init_fn=None,", "tests/robustness/faults/test_left_alone.py", 12),
    Fault("metrics of the lost steps remain", "callbacks/metrics_log.py", 'if int(row["step"]) <= self.last_step', "if row", RESUME, 9),
    Fault("the perplexity is that of a running mean", "callbacks/perplexity.py", "perplexity(pl_module.window_loss)", "perplexity((vars(self).setdefault('first', pl_module.window_loss) + pl_module.window_loss) / 2)",
          "tests/integration/runs/test_directory.py::test_steps_csv_has_every_step[gpt2]"),
    Fault("fractions of train are not nested", "data/preprocessing/train_fraction.py", "mixed(unique, seed)", "mixed(unique, seed + int(1000 * fraction))",
          "tests/unit/data/preprocessing/test_train_fraction.py"),
    # 7 same seed
    Fault("the adapter is drawn without a seed", "training/build.py", "    pl.seed_everything(cfg.seed, workers=True, verbose=False)\n", "",
          f"{HERE}/test_same_seed_same_bytes.py::test_same_seed_same_bytes", 15),
    # 8 train mode
    Fault("training in eval mode", "models/module.py", "        self.train()\n", "        self.eval()\n", MODES),
    Fault("weights are trained in the checkpoint's type", "models/backbone/load.py", '"dtype": dtype_of(cfg)', '"dtype": "auto"', f"{MODES} -k bf16"),
    Fault("gradient checkpointing is not turned on", "models/backbone/load.py", "    if cfg.gradient_checkpointing:\n        model.", "    if False:\n        model.", f"{MODES} -k keeps_less"),
    Fault("an evaluation repacks 4-bit weights", "models/backbone/quantization.py", "            module.support_avx512bf16_for_cpu = False\n", "            pass\n",
          "tests/integration/models/test_quantization.py -k tiny_llama-qlora"),
    Fault("an evaluation takes another int8 kernel", "models/backbone/quantization.py", "            module.__class__ = _training_linear_8bit()\n", "            pass\n",
          "tests/integration/models/test_quantization.py -k tiny_llama-lora_8bit"),
    Fault("packed bytes are counted as parameters", "models/backbone/quantization.py", "parameter.numel() if state is None else state.shape.numel()", "parameter.numel()",
          "tests/integration/models/test_quantization.py -k counted"),
    Fault("LoRA under autocast copies its input to float32", "models/peft/lora_autocast.py", "autocast_dtype_of(input) or ", "", "tests/unit/models/peft/test_lora_autocast.py"),
    Fault("LoRA that recomputes ignores autocast", "models/peft/lora_recompute.py", "dtype = autocast_dtype_of(input) or self.weight.dtype", "dtype = self.weight.dtype", "tests/unit/models/peft/test_lora_autocast.py"),
    Fault("a run that was trained on a GPU is not opened without one", "config/validate.py", "machine=not (stored or elsewhere)", "machine=True", "tests/unit/config/test_validate.py -k opened_without"),
    Fault("moments of a checkpoint are not paged", "models/optimizer.py", "self.state[p][name] = buffer.copy_(value)", "self.state[p][name] = value.clone()", "tests/integration/models/test_optimizers.py -k paged_again"),
    Fault("an adapter is loaded with missing weights", "models/peft/lora.py", "        if missing or unknown:\n", "        if False:\n", "tests/integration/models/test_peft.py -k whose_weights"),
    # 9 guards
    Fault("training continues with a loss of NaN", "callbacks/nan_guard.py", "if not math.isfinite(loss):", "if False:", GUARDS),
    Fault("training continues with a gradient of NaN", "callbacks/nan_guard.py", "if not math.isfinite(norm) and not scaled:", "if False:", f"{GUARDS}::test_a_gradient_that_breaks_later_leaves_the_last_good_checkpoint"),
    Fault("broken weights are saved", "callbacks/nan_guard.py", "zip(weights, finite, strict=True) if not each]", "zip(weights, finite, strict=True) if False]", f"{GUARDS}::test_the_weights_after_the_last_step_are_checked_too"),
    Fault("a weight below its rounding step is idle", "diagnostics/update_size.py", "if (update - decay >= SAFE_STEPS * rounding_step(part)).any():", "if True:", f"{HEALTHY}::test_a_healthy_training_is_not_halted"),
    Fault("a layer skipped at random is detached", "diagnostics/idle_weights.py", "(self.steps if _skips_layers(model) else 1)", "1", f"{HEALTHY}::test_a_healthy_training_is_not_halted"),
    Fault("rows of a further validation file move the split", "data/preparation.py", "np.flatnonzero(fixed[owners] < len(SPLITS)) if self.extra_val else np.arange(len(owners))", "np.arange(len(owners))",
          "tests/integration/data/test_splits.py -k further_validation_files"),
    Fault("a near-duplicate is missed", "data/preprocessing/similar_texts.py", "* grams.sizes - 1e-9).astype(int) + 1", "* grams.sizes - 1e-9).astype(int)",
          "tests/unit/data/preprocessing/test_similar_texts.py -k no_pair"),
    Fault("NaN weights are taken for a leak between packed examples", "models/attention/packing.py", "bool((equal | expected.isfinite()).all())", "True", "tests/unit/models/test_forward.py -k not_finite"),
    Fault("a failed request to a judge is taken for a finished one", "evaluation/judge/judge.py", '{} if request.finished else {"failed": True}', "{}",
          "tests/unit/evaluation/judge/test_http_client.py -k given_up"),
    Fault("a weight that never changes is healthy", "diagnostics/idle_weights.py", "        if stuck:\n", "        if False:\n", f"{HEALTHY}::test_a_broken_training_is_halted -k restored"),
    # 10 export
    Fault("the trained prompt is not saved", "generation/save.py", "generator.codec.template.saved", "tokenizer.chat_template", EXPORT),
    Fault("generation settings are not saved", "generation/save.py", "    settings.save_pretrained(folder)\n", "", EXPORT),
    Fault("the base is exported for the adapter", "export/forms/merged.py", "model.merge_and_unload()", "model.unload()", SAME),
    Fault("what is exported is not compared", "export/passport.py", "any(check.passed is False for check in checks)", "False", f"{PASSPORT} -k by_name"),
    Fault("prompts of an export are not compared", "export/passport.py", '"prompt ids", not wrong,', '"prompt ids", True,', f"{PASSPORT} -k by_name"),
    Fault("the stop token of an export is not compared", "export/passport.py", "known = reference.stop_id in runtime.stop_ids", "known = True", f"{PASSPORT} -k by_name"),
    Fault("answers of an export may always differ", "export/passport.py", "bool((margins < tolerance).any())", "True", f"{PASSPORT} -k near_tie"),
    Fault("any loss of quantized weights is kept", "export/passport.py", "rise <= limit,", "True,", f"{PASSPORT} -k quantized"),
    Fault("a wrong flag of a tied head is not seen", "export/forms/merged.py", "if flag and heads and", "if False and", "tests/unit/export/forms/test_merged.py"),
    Fault("an untied T5 is written as tied", "models/backbone/transformers4.py", '    config["tie_word_embeddings"] = flag\n', "", f"{TRANSFORMERS4} -k t5"),
    Fault("rotary positions are written for transformers 5 alone", "models/backbone/transformers4.py", "        part |= dict(_rope(part))\n", "        pass\n", f"{TRANSFORMERS4} -k rotary"),
    Fault("the run's system prompt is not used", "commands/answer.py", "with_system(config.system or system)", "with_system(config.system)", f"{SAME} -k psychology"),
    Fault("random numbers follow the place in a batch", "generation/generator.py", "[decoder.stream(prompt, seed=self.seed, sample=sample) for prompt in prompts]",
          "[decoder.stream(prompt, seed=self.seed + row, sample=sample) for row, prompt in enumerate(prompts)]", f"{HERE}/test_one_seed_one_answer.py -k t5"),
    Fault("a common prefix is stored one place off", "generation/prefill.py", "one[:, :, start:].clone()", "one[:, :, : one.shape[2] - start].clone()", f"{KNOWN_PREFIXES} -k goes_on"),
    Fault("what a sequence stores begins with its prompt", "generation/prefill.py", "at = self.positions[start:]", "at = self.positions[: len(self.positions) - start]", f"{KNOWN_PREFIXES} -k depend"),
    Fault("padding is computed as a prefix", "generation/batch.py", "pad(one, (0, 0, width - one.shape[2], 0))", "pad(one, (0, 0, 0, width - one.shape[2]))", f"{KNOWN_PREFIXES} -k depend"),
    Fault("the base model finds the adapter's prefixes", "generation/decoder.py", "scope = codec.tokenizer.pad_token_id, (model, adapter)", "scope = codec.tokenizer.pad_token_id, (model, True)", f"{KNOWN_PREFIXES} -k base_model"),
    Fault("the prefix cache grows without limit", "generation/prefix_cache.py", "while self.bytes > self.limit:", "while False:", f"{PREFIX_CACHE} -k room"),
    Fault("the prefix cache drops what was used last", "generation/prefix_cache.py", "            self._use(node)\n            found +=", "            found +=", f"{PREFIX_CACHE} -k room"),
    Fault("answers are assigned to other questions", "commands/answer.py", "(generator, examples[chunk], prompts[chunk],", "(generator, examples[chunk], prompts[chunk][::-1],", SAME),
    Fault("evaluate.rows=auto counts an untrained model's answers as short", "evaluation/row_budget.py", "cost += _pass(cfg.generation, row, limit)\n    if settings.base and", "cost += _pass(cfg.generation, row, row.answer)\n    if settings.base and", "tests/unit/evaluation/test_row_budget.py -k row_costs"),
    Fault("a trained adapter has the losses of an untrained one", "training/baseline.py", 'not (is_fresh and "lora_" in name)', 'not ("lora_" in name)', "tests/unit/training/test_baseline.py -k fresh"),
    Fault("a prompt that begins later has as much of the prefix in the first columns", "generation/prefill.py", "common.length - longest + len(prompt) for", "common.length for", f"{KNOWN_PREFIXES} -k beams_and"),
   # 11 speed
    Fault("the last chunk of positions is dropped", "models/chunked_head.py", "range(0, len(hidden), size)", "range(0, len(hidden) - size + 1, size)", HEAD),
    Fault("the head gets no gradient", "models/chunked_head.py", "weight_grad += (grad.T @ states).to(weight_grad.dtype)", "pass", f"{SPEED} -k none"),
    Fault("logits that change after the head are taken before the change", "models/forward.py", "self.kernels.head_is_last = logits.is_meta or ", "self.kernels.head_is_last = True or ",
          f"{SPEED} -k after_the_head"),
    Fault("unpadded examples attend to each other", "models/attention/packing.py", "    edges = [[*starts.nonzero()[:, 0].tolist(), rows.shape[1]]",
          "    edges = [[0, rows.shape[1]]", f"{SPEED} -k fast_kernels"),
    Fault("an example without targets has no decoder position", "models/seq2seq.py", "        targets[:, 0] = True\n", "", f"{SPEED} -k without_labels"),
    Fault("short sequences in one call attend to their repeats", "models/attention/varlen.py", "(slot >= size)[:, None, None]", "(slot < 0)[:, None, None]", f"{SPEED} -k tiny_t5"),
    Fault("T5's bias when unpadded is that of the shortest example", "models/attention/varlen.py", "longest = max(map(max,", "longest = min(map(min,", f"{SPEED} -k tiny_t5"),
    Fault("generation keeps the attention of the last batch", "models/attention/kernels.py", "model.set_attn_implementation(before)", "pass", f"{SPEED} -k fast_kernels"),
    Fault("own parts start at position 0", "models/attention/prefix_tree.py", "torch.cat([torch.arange(segment.start, segment.end) for", "torch.cat([torch.arange(segment.end - segment.start) for",
          f"{PREFIXES} -k llama"),
    Fault("an example's own tokens do not see the prefix", "models/attention/shared_prefix.py", "[] if segment.parent < 0 else [*before[segment.parent], segment.parent]", "[]",
          f"{PREFIXES} -k llama"),
    Fault("own tokens see only the last shared segment", "models/attention/shared_prefix.py", "[*before[segment.parent], segment.parent]", "[segment.parent]", f"{PREFIXES} -k llama"),
    Fault("own tokens see later ones", "models/attention/shared_prefix.py", ".triu(keys - size + 1)", ".triu(keys - size + 2)", f"{PREFIXES} -k none"),
    Fault("own tokens of a padded batch see later ones", "models/attention/shared_prefix.py", "torch.arange(keys.shape[1]) > positions", "torch.arange(keys.shape[1]) > 1 + positions", f"{PREFIXES} -k lora"),
    Fault("a prefix gets the gradient of one example", "models/attention/shared_prefix.py", "kept = (x[0].transpose(0, 1) for", "kept = (x[0].transpose(0, 1).detach() for", f"{PREFIXES} -k lora"),
    Fault("the first label may be predicted from the prefix", "models/attention/prefix_tree.py", "max(0, int(supervised[0]) - 1)", "int(supervised[0])", PREFIXES),
    Fault("a shared prefix drops out once for all examples", "models/attention/kernels.py", "or not model.training or not self._drops(model)", "or True", f"{PREFIXES} -k noise"),
    Fault("the last layer's output is put at other positions", "models/last_layer.py", "chosen.index.to(output.device)", "chosen.index.roll(1)", f"{HERE}/test_the_last_layer_skips_what_nobody_reads.py -k llama"),
    Fault("the last layer leaves out values too", "models/last_layer.py", 'OUTPUT = ("o_proj",', 'OUTPUT = ("v_proj", "o_proj",', f"{HERE}/test_the_last_layer_skips_what_nobody_reads.py -k llama"),
    Fault("noise of the last layer is drawn for fewer positions", "models/last_layer.py", "not (part.drops and part.module.training)", "True", "tests/unit/models/test_last_layer.py"),
    Fault("the recomputation of the last layer has other shapes", "models/last_layer.py", "any(module.gradient_checkpointing for", "any(False for", "tests/unit/models/test_last_layer.py"),
    Fault("a last layer that mixes positions is trusted", "models/first_batch.py", "difference.is_small if difference.finite else None\n\n", "True\n\n", "tests/unit/models/test_last_layer.py"),
    Fault("losses of rows are those of other tokens", "evaluation/row_loss.py", "losses.split(lengths)", "losses.flip(0).split(lengths)", f"{PREFIXES} -k each_row"),
    Fault("a model that computes something else with a shared prefix is trusted", "models/forward.py", "return shared if self.kernels.sharing_is_equivalent else None", "return shared",
          f"{PREFIXES} -k something_else"),
    # 12 plain Lightning
    Fault("a fit goes on with whatever random state there is", "callbacks/trainer_check.py", "        pl.seed_everything((self.cfg.seed + trainer.global_rank) % 2**32, workers=True, verbose=False)\n", "",
          f"{PLAIN} -k causal"),
    Fault("a Trainer may accumulate otherwise", "callbacks/trainer_check.py", '("precision", "accumulate_grad_batches")', '("precision",)', f"{PLAIN} -k refused"),
    Fault("a Trainer may clip as well", "callbacks/trainer_check.py", "if trainer.gradient_clip_val is not None:", "if False:", f"{PLAIN} -k refused"),
    # GGUF files
    Fault("another archive is accepted", "export/llama_cpp/archive.py", "(found := digest(file)) != SHA256", "(found := digest(file)) == ''", f"{GGUF}/llama_cpp/test_archive.py"),
    Fault("llama.cpp adds a BOS that was not trained", "export/forms/gguf.py", "text.startswith(bos) and ids[0]", "ids[0]", f"{GGUF}/forms/test_gguf.py"),
    Fault("a GGUF file does not know the stop token", "export/forms/gguf.py", "if codec.stop_id != tokenizer.eos_token_id:", "if False:", f"{GGUF}/forms/test_gguf.py"),
    Fault("a system prompt has another place in llama.cpp", "export/forms/gguf.py", "'\\\\n\\\\n'", "'\\\\n'", f"{GGUF}/forms/test_gguf.py"),
    Fault("Ollama gets a template that is not the trained one", "export/llama_cpp/turn_shape.py", "if shape.render(*conversation) != render(*conversation):", "if False:", f"{GGUF}/llama_cpp/test_turn_shape.py -k refused"),
    Fault("a T5 with a tied head becomes a GGUF file", "export/llama_cpp/convert.py", "in T5 and scaled:", "in T5 and False:", f"{GGUF}/llama_cpp/test_convert.py -k tied"),
    # exports in their runtimes
    Fault("CTranslate2 scales T5 by the flag of the tied head", "export/forms/ctranslate2.py",
          "config.tie_word_embeddings if scales is None else scales", "config.tie_word_embeddings",
          "tests/integration/export/test_ctranslate2.py::test_each_architecture_gives_the_logits_and_answers_of_transformers[t5_untied]"),
    # a config writes nothing elsewhere, and holds no value of the environment
    Fault("a log file that a file names is opened", "config/hydra_allowlist.py", "                yield from _log_file_faults(path, node, writable)\n",
          "                yield from ()\n", WRITES),
    Fault("links out of the output folder are not followed", "config/write_paths.py", "os.path.realpath(os.path.expanduser(path))",
          "os.path.abspath(os.path.expanduser(path))", f"{WRITES} -k link"),
    Fault("a stored run keeps its cache elsewhere", "runs/open.py", "        cfg.data.cache = None\n", "        pass\n", f"{WRITES} -k stored"),
    Fault("overrides are stored resolved", "config/typed_overrides.py", "overrides.task, resolve=False)", "overrides.task, resolve=True)",
          "tests/unit/config/test_redact.py -k not_resolved"),
    # the base of a sweep's jobs
    Fault("a sweep's other base has the same answers", "evaluation/base_cache.py", "        fingerprint(model),\n", "", f"{BASE} -k other_weights"),
    Fault("answers of other rows are taken for the base's", "evaluation/base_cache.py", "        [[row.input_ids, row.labels, row.prompt_length] for row in rows],\n", "", BASE),
    Fault("float32 leaves the base converted", "models/dtype.py", "            tensor.data = tensor.data.bfloat16()\n", "            pass\n", "tests/unit/models/test_dtype.py"),
    # what a model forgot
    Fault("the KL divergence is of the other direction", "evaluation/retention/divergence.py", "(base.exp() * (base - tuned))",
          "(tuned.exp() * (tuned - base))", "tests/unit/evaluation/retention/test_divergence.py -k from_base_to_tuned"),
    Fault("a loss that rises flags nothing", "evaluation/retention/result.py", "increase <= MAX_LOSS_INCREASE and ", "",
          "tests/unit/evaluation/retention/test_result.py -k flagged"),
    Fault("changed answers flag a model", "evaluation/retention/retention.py", '            "changed": None if answered',
          '            "flagged": bool(answered),\n            "changed": None if answered',
          "tests/integration/evaluation/test_retention.py::test_changed_answers_alone_flag_nothing"),
    # the report
    Fault("words are marked against the base", "report/examples.py", "missing, extra = compare(reference, answer)",
          "missing, extra = compare(_cut(base), answer)", "tests/unit/report/test_examples.py -k counted_against"),
    Fault("the last step is called the best", "report/best_step.py", "key=lambda i: (sign * series.values[i], i))", "key=lambda i: -i)",
          "tests/unit/report/test_best_step.py"),
    # a verdict
    Fault("validation rows are taken for test rows", "metrics/verdict/reservations.py", 'STAND_INS.get(str(evaluation.get("split")))', "None", VERDICT),
    Fault("clean rows are all rows", "metrics/compare.py", "enumerate(predictions) if not prediction.in_train]", "enumerate(predictions)]", VERDICT),
    Fault("many scores are not corrected", "metrics/verdict/scores.py", 'holm([entry["p"] for entry in tested.values()])', '[entry["p"] for entry in tested.values()]', VERDICT),
    # runs are compared on the same rows, in units that they share
    Fault("losses of different tokenizers are ranked per token", "report/leaderboard/ranking.py", "same_rows and (same_tokens or not is_loss)", "same_rows",
          f"{RANKING}::test_losses_of_different_tokenizers_are_ranked_per_byte"),
    Fault("runs are scored on rows that others lack", "report/leaderboard/shared_rows.py", "all(key in h for h in had)", "any(key in h for h in had)",
          f"{RANKING}::test_runs_of_other_validation_rows_are_ranked_over_the_rows_that_they_share"),
    Fault("a key that changes only generated ids has no effect", "training/step_trace.py", "if reference.answers != other.answers:", "if reference.answers != reference.answers:",
          "tests/unit/training/test_step_trace.py"),
    Fault("code in a task file is run", "evaluation/suites/task_files.py", 'if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:', 'if "python" in node.tag:',
          "tests/unit/evaluation/suites/test_task_files.py"),
    # the referee
    Fault("the referee compares no ids", "referee/referee.py", "if difference := _difference(row, own):", "if difference := None:", f"{REFEREE} -k EOS_not"),
    Fault("the referee trains the training's model", "referee/float64.py", "copy.deepcopy(model).double()", "model.double()", f"{REFEREE} -k same_numbers"),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", metavar="WORD", help="only faults whose name holds this")
    parser.add_argument("-v", action="store_true", help="print why each test failed")
    parser.add_argument("--check", action="store_true", help="only check that every edit still fits the source")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one fault (default: %(default)s)")
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if args.k in fault.name]
    misfits = [f"{fault.name}: {why}" for fault in chosen if (why := misfit(fault))]
    if misfits or args.check:
        print("\n".join([*misfits, f"{len(chosen)} edits, {len(misfits)} do not fit the source"]))
        return int(bool(misfits))
    preload()
    survivors, started = 0, time.monotonic()
    for outcome in run_all(chosen, limit=args.limit):
        line = f"{'seen    ' if outcome.seen else 'SURVIVED'} {outcome.seconds:4.1f} s  {outcome.fault.name}"
        why = f"\n    ({outcome.cpu_seconds:.1f} s of CPU) {outcome.reason}" if args.v or not outcome.seen else ""
        print(f"{line}{why}", flush=True)
        survivors += not outcome.seen
    print(f"{len(chosen)} faults put in, {survivors} survived ({time.monotonic() - started:.0f} s)")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
