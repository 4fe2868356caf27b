#!/usr/bin/env bash
# llmft on a GPU: what to run, in which order, in 15 minutes (any CUDA GPU; the 8B shape takes 90 GB of it, 16 GB of disk).
#
#   bash benchmarks/gpu_first_run.sh prepare   where there is a network: wheels for the GPU machine into .wheels, .wheels-unsloth
#   bash benchmarks/gpu_first_run.sh           on the GPU, in the repository's root: all stages; results into $OUT (gpu_results)
#   bash benchmarks/gpu_first_run.sh 1 2       some stages; no new work starts after DEADLINE seconds (default 840)
#   REHEARSAL=1 bash benchmarks/gpu_first_run.sh   the same on a CPU, with tiny models: whether the script itself works
#   python benchmarks/gpu_report.py gpu_results    the results into docs/gpu.md (the script does it at its end, too)
#
# Stages, in the order of what a missing answer would cost; when time ends, the last ones are dropped:
#   1 tests/gpu: numbers, determinism, adapters, attention      4 torch.compile; Unsloth; TRL, 1B and GPT-2 shapes
#   2 LoRA of an 8B shape, packed, 4,096 tokens, beside TRL      5 where a step's time goes, and the host's waits
#   3 QLoRA beside LoRA on the 8B shape                          6 tests/gpu in processes of their own; packing, seq2seq
set -u
STARTED=$(date +%s); DEADLINE=${DEADLINE:-840}; REHEARSAL=${REHEARSAL:-}
ROOT=$PWD; OUT=${OUT:-$ROOT/gpu_results}; mkdir -p "$OUT"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
test -f benchmarks/gpu_first_run.sh || { echo "run it in the repository's root"; exit 2; }

if [ "${1:-}" = prepare ]; then
  # for a machine with torch and CUDA, and no network; WITHOUT: packages that it has already; CUDA: its version, 130 for 13.0
  PACK="${PYTHON:-python3} benchmarks/gpu_wheels.py --python ${PYTHON_VERSION:-3.12} ${CUDA:+--cuda $CUDA}"
  rm -rf .wheels .wheels-unsloth
  # shellcheck disable=SC2086 (several words)
  $PACK .wheels --constraint constraints.txt ${WITHOUT:+--without $WITHOUT} || exit
  # shellcheck disable=SC2086
  $PACK .wheels-unsloth --requirement benchmarks/unsloth.txt ${WITHOUT:+--without $WITHOUT} || echo "without Unsloth"
  exit
fi

# the environment: the project's own if it sees the GPU, else this machine's python3 with the wheels that were carried
sees_gpu() { "$1" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }
if [ -n "$REHEARSAL" ]; then PY=${PYTHON:-$ROOT/.venv/bin/python}
elif [ -x .venv/bin/python ] && sees_gpu .venv/bin/python; then PY=$ROOT/.venv/bin/python
elif sees_gpu python3; then
  PY=$(command -v python3)
  [ -d .site ] || python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target .site .wheels/*.whl
  # llmft asks for its own version when it is imported
  mkdir -p .site/llmft-0.1.0.dist-info && printf 'Metadata-Version: 2.1\nName: llmft\nVersion: 0.1.0\n' > .site/llmft-0.1.0.dist-info/METADATA
  export PYTHONPATH=$ROOT/src:$ROOT/.site:$ROOT${PYTHONPATH:+:$PYTHONPATH}
else echo "no Python here sees a CUDA device (.venv, python3); REHEARSAL=1 tries the script on a CPU"; exit 2; fi
export PEERS_PYTHON=${PEERS_PYTHON:-$PY}
if [ -z "$REHEARSAL" ] && compgen -G '.wheels-unsloth/*.whl' > /dev/null; then
  [ -d .site-unsloth ] || python3 -m pip install --quiet --no-index --no-deps --no-compile --target .site-unsloth .wheels-unsloth/*.whl
  export UNSLOTH_PYTHON=$PY UNSLOTH_SITE=$ROOT/.site-unsloth
fi
MODELS=$(mktemp -d); trap 'rm -rf "$MODELS"' EXIT  # shapes: 16 GB for the one of 8B, made once

left() { echo $((DEADLINE - ($(date +%s) - STARTED))); }
stage() { STAGE=$1; echo; echo "== $1: $2 ($(left) s left)"; }
wants() { case " $STAGES " in *" $1 "*) return 0 ;; *) return 1 ;; esac }
step() { # step SECONDS NAME command...: its output into NAME.txt, its result into summary.txt
  local most=$1 name=$2 began rc; shift 2
  [ -z "$REHEARSAL" ] || most=$((most * 5))  # on a CPU the limits of a GPU say nothing
  [ "$(left)" -gt 20 ] || { echo "skipped $STAGE $name: no time" | tee -a "$OUT/summary.txt"; return; }
  [ "$most" -lt "$(left)" ] || most=$(left)
  began=$(date +%s); timeout -k 15 "$most" "$@" > "$OUT/$name.txt" 2>&1; rc=$?
  echo "$([ $rc = 0 ] && echo ok || echo FAILED) $STAGE $name rc=$rc $(($(date +%s) - began)) s" | tee -a "$OUT/summary.txt"
  [ $rc = 0 ] || tail -n 8 "$OUT/$name.txt"
}
tests() { # tests SECONDS NAME files...: its JUnit file is what the report reads
  local most=$1 name=$2; shift 2
  step "$most" "$name" "$PY" -m pytest -m gpu -p no:cacheprovider -q -rfE --durations=8 --junitxml="$OUT/tests_$name.xml" "$@"
  tail -n 4 "$OUT/$name.txt" 2>/dev/null
}
bench() { # bench SECONDS CASE arguments...
  local most=$1 name=$2; shift 2
  rm -f "$OUT/$name.md"
  step "$most" "bench_$name" "$PY" benchmarks/train.py "$name" --device "$DEVICE" --tables "$OUT" --models "$MODELS" "$@"
  grep -E "^\||MFU|times the|skipped" "$OUT/bench_$name.txt" 2>/dev/null | cut -c1-220
}

STAGES="${*:-1 2 3 4 5 6}"
if [ -n "$REHEARSAL" ]; then
  export LLMFT_GPU_REHEARSAL=1 OMP_NUM_THREADS=1
  DEVICE=cpu; LARGE=tiny_shape; MIDDLE=tiny_shape; GPT2=tiny_gpt2; T5=tiny_t5; SIZE="--steps 2 --warm-up 1 --rounds 1 --threads 1"; LONG=$SIZE
else
  DEVICE=cuda; LARGE=llama3_8b_shape; MIDDLE=tinyllama_shape; GPT2=gpt2_medium_shape; T5=flan_t5_small_shape
  SIZE="--steps 5 --warm-up 2 --rounds 2"; LONG="--steps 24 --warm-up 4 --rounds 2"  # steps of SIZE: as many as the shipped rows allow
fi
"$PY" - > "$OUT/machine.txt" <<'PY'
import datetime, torch, transformers, peft, lightning, bitsandbytes
card = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU (a rehearsal, no result)"
print(f"{datetime.date.today()}: {card}, torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, "
      f"lightning {lightning.__version__}, bitsandbytes {bitsandbytes.__version__}.")
PY
cat "$OUT/machine.txt"; "$PY" benchmarks/gpu_wheels.py --check

if wants 1; then stage 1 "tests/gpu that need no process of their own"
  tests 240 numbers tests/gpu/test_numbers.py tests/gpu/test_attention.py tests/gpu/test_liger.py
  tests 120 adapters tests/gpu/test_determinism.py tests/gpu/test_adapters.py tests/gpu/test_optimizers.py -k "not run_and_its_resume"
fi
# shellcheck disable=SC2086 (the sizes are several arguments)
if wants 2; then stage 2 "LoRA of an 8B shape, packed, at 4,096 tokens, beside TRL"; bench 210 packed_8b --model $LARGE $LONG; fi
# shellcheck disable=SC2086
if wants 3; then stage 3 "QLoRA beside LoRA on the 8B shape"; bench 180 qlora_8b --model $LARGE $LONG; fi
# shellcheck disable=SC2086
if wants 4; then stage 4 "llmft and its peers, each at its best"
  bench 120 compile_8b --model $LARGE $LONG; bench 150 unsloth_8b --model $LARGE $LONG
  bench 110 causal_lora_best --model $MIDDLE $SIZE; bench 80 causal_full_best --model $GPT2 $SIZE
fi
if wants 5; then stage 5 "where a step's time goes"
  M="model=tiny_llama trainer.accelerator=auto"
  step 120 gpu_steps "$PY" benchmarks/gpu_profile.py "tiny Llama, LoRA=$M peft=lora" "tiny Llama, full=$M peft=none" \
    "tiny Llama, LoRA, packed=$M peft=lora data.batching=packed" "tiny Llama, QLoRA=$M peft=qlora" "tiny T5, full=model=tiny_t5 trainer.accelerator=auto peft=none"
  grep "^|" "$OUT/gpu_steps.txt" | tee "$OUT/gpu_steps.md"
fi
# shellcheck disable=SC2086
if wants 6; then stage 6 "tests/gpu in processes of their own; packing; seq2seq"
  tests 200 processes tests/gpu/test_scale.py tests/gpu/test_adapters.py -k "peak or run_and_its_resume"
  bench 60 packing_gpu --model $MIDDLE $SIZE; bench 60 seq2seq_best --model $T5 $SIZE
fi
echo; echo "== summary"; cat "$OUT/summary.txt"
[ -n "$REHEARSAL" ] && cp docs/gpu.md "$OUT/page" && "$PY" benchmarks/gpu_report.py "$OUT" "$OUT/page" && exit
"$PY" benchmarks/gpu_report.py "$OUT" && cp docs/gpu.md "$OUT/page"
