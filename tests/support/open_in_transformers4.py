"""Open folders with transformers 4, in an environment of its own: prompt ids and logits of each, into a JSON file.

python tests/support/open_in_transformers4.py CASES.json RESULTS.json
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer


def opened(case):
    """``{"ids": ..., "difference": ...}`` of a case, or ``{"error": ...}``."""
    auto_class = AutoModelForSeq2SeqLM if case["decoder_ids"] else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(case["folder"])
    ids = tokenizer.apply_chat_template(case["messages"], add_generation_prompt=True)
    model = auto_class.from_pretrained(case["base"] or case["folder"], dtype=torch.float32)
    if case["base"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, case["folder"])
    inputs = {"input_ids": torch.tensor([case["ids"]])}
    if case["decoder_ids"]:
        inputs["decoder_input_ids"] = torch.tensor([case["decoder_ids"]])
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits[0]
    plain = tokenizer(case["text"])["input_ids"]
    return {"ids": ids, "text_ids": plain, "difference": float((logits - torch.tensor(case["logits"])).abs().max())}


def main():
    cases = json.loads(Path(sys.argv[1]).read_text())
    found = []
    for case in cases:
        try:
            found.append(opened(case))
        except Exception as error:  # each case is judged by the test
            found.append({"error": f"{type(error).__name__}: {error}"[:500]})
    Path(sys.argv[2]).write_text(json.dumps({"version": transformers.__version__, "found": found}))


if __name__ == "__main__":
    main()
