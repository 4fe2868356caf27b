"""Plain transformers and peft: the runtime of merged weights and of adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmft.models.backbone import quantization, untrusted
from llmft.models.backbone.special_ids import decoder_start_id
from llmft.runtimes.tokenizer_runtime import TokenizerRuntime
from llmft.utils.device import default_device
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

SAFELY: dict[str, Any] = {"trust_remote_code": False}
# Of a GenerationConfig: what a model needs to answer at all. Everything else (beams, penalties) would not be the plain argmax.
NEEDED = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "bad_words_ids",
)  # fmt: skip


class PyTorchRuntime(TokenizerRuntime):
    """A transformers or peft model with the tokenizer and the generation config of its folder.

    Args:
        model: A transformers or peft model, in eval mode.
        tokenizer: A Hugging Face tokenizer with a chat template.
        generation: A GenerationConfig; its stop tokens and forced tokens are used.
    """

    def __init__(self, model: Any, tokenizer: Any, generation: Any) -> None:
        import transformers

        self.name = f"transformers {transformers.__version__}"
        super().__init__(tokenizer, vars(generation))
        self.model, self.generation = model, generation
        # generate() takes what its argument leaves open from the model's own: beams and penalties of the run
        model.generation_config = self._needed()

    @torch.inference_mode()
    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """Logits [len(answer), V] of one forward pass."""
        device = self.model.device
        if self.model.config.is_encoder_decoder:
            start = [decoder_start_id(self.model), *answer[:-1]]
            inputs = {"input_ids": prompt, "decoder_input_ids": start}
        else:
            inputs = {"input_ids": [*prompt, *answer[:-1]]}
        found = self.model(**{name: torch.tensor([ids], device=device) for name, ids in inputs.items()}).logits
        return found[0, -len(answer) :].float().cpu().numpy()

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """One prompt after the other, so that no padding is involved."""
        config = self._needed(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        return [self._generated(prompt, config) for prompt in prompts]

    def _needed(self, **options: Any) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(**{name: getattr(self.generation, name, None) for name in NEEDED}, **options)

    def _generated(self, prompt: Sequence[int], config: Any) -> list[int]:
        ids = torch.tensor([prompt], device=self.model.device)
        found = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return found[0, 1 if self.model.config.is_encoder_decoder else len(prompt) :].tolist()


def open_folder(
    folder: Path, *, dtype: str = "auto", base: str | None = None, revision: str | None = None
) -> PyTorchRuntime:
    """Load merged weights, or an adapter on its base, as anybody would: with plain transformers and peft.

    Args:
        folder: With ``config.json`` or ``adapter_config.json``, tokenizer and generation config.
        dtype: ``auto`` (of the weights) or a dtype's name.
        base: Folder or Hub id of an adapter's base; None takes the one that ``adapter_config.json`` names.
        revision: Of the base on the Hub.

    Raises:
        UserError: It brings code of its own, or is not what transformers can load.
    """
    from transformers import AutoTokenizer, GenerationConfig

    adapter = (folder / "adapter_config.json").is_file()
    untrusted.check_model(folder, code=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **SAFELY)
        generation = GenerationConfig.from_pretrained(folder)
        if adapter:
            base = base or untrusted.base_of_adapter(folder)
            if not base:
                raise UserError(f"{folder}: its adapter_config.json does not name the base model")
            model = _load(base, dtype, revision)
            if model.config.is_encoder_decoder:  # before peft keeps the base's, which forces BART's last token
                model.generation_config = generation
            model = with_adapter(model, folder, tokenizer)
        else:
            model = _load(str(folder), dtype, None)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: transformers cannot load it ({one_line(error)})") from error
    if model.config.is_encoder_decoder:  # mBART's start token is in no config of the base
        model.generation_config = generation
    return PyTorchRuntime(model.to(default_device()).eval(), tokenizer, generation)


def _load(path: str, dtype: str, revision: str | None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if Path(path).is_dir():
        untrusted.check_model(Path(path), code=False)
    config = AutoConfig.from_pretrained(path, revision=revision, **SAFELY)
    auto_class: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, info = auto_class.from_pretrained(
        path, revision=revision, dtype=dtype, use_safetensors=True, output_loading_info=True, **SAFELY
    )
    untrusted.check_loaded(path, info)
    return model


def with_adapter(base: Any, folder: Path, tokenizer: Any) -> Any:
    """The base with its adapter; tokens that were added in training get embeddings first, whose rows the adapter holds.

    Args:
        base: A transformers model.
        folder: With ``adapter_config.json``.
        tokenizer: Of that folder.

    Raises:
        UserError: The adapter is not plain LoRA, or does not fit.
    """
    if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with quantization.deferred_compile():
        return untrusted.load_adapter(base, folder, len(tokenizer))
