"""lm-evaluation-harness's interface around a loaded model: prompts, stop tokens and padding are those of the run."""

import importlib
from typing import Any, cast

from llmft.data.batching.collate import generation_batch
from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.data.tokenization.template import Prompt
from llmft.generation.settings import stop_ids
from llmft.utils.errors import UserError


class RunPrompts:
    """What differs from the harness's ``HFLM``, which this is mixed into.

    Conversations are rendered and tokenized as in training and in ``answer``, the trained stop token ends an answer, and prompts
    that are cut are counted.

    Attributes:
        codec: Of the run.
        rendered: The prompt of each text that ``apply_chat_template`` has returned.
        cut: Number of sequences that were cut at their start, because the model has too few positions.
    """

    codec: Codec
    rendered: dict[str, Prompt]
    cut: int

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation with the prompt template of the run.

        Raises:
            UserError: The template has no place for a turn, such as a system prompt.
        """
        turns = [Turn(message["role"], message["content"]) for message in chat_history]
        if add_generation_prompt:
            prompt = self.codec.template.render(turns)
        else:  # the last turn is the start of the answer
            prompt = self.codec.template.render(turns[:-1]).followed_by(turns[-1].content)
        self.rendered[prompt.text] = prompt
        return prompt.text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """The ids of a rendered prompt as in training; other texts as the harness tokenizes them."""
        if string in self.rendered:
            return self.codec.prompt_ids(self.rendered[string])
        inherited: Any = super()
        return inherited.tok_encode(string, add_special_tokens, **options)

    def tok_batch_encode(self, strings: list[str], left_truncate_len: int | None = None, **_: Any) -> tuple[Any, Any]:
        """Ids and attention mask, [B, S]: padded on the left for causal models, on the right for encoders."""
        rows = [self.tok_encode(string) for string in strings]
        kept = [row[-left_truncate_len:] if left_truncate_len else row for row in rows]
        self.cut += sum(len(short) < len(row) for short, row in zip(kept, rows, strict=True))
        causal = cast("Any", self).backend == "causal"
        batch = generation_batch(kept, self.codec.tokenizer.pad_token_id, pad_left=causal)
        return batch["input_ids"], batch["attention_mask"]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a prompt, and of an answer without its stop token."""
        prompt = self.rendered.get(context)
        if prompt is None:
            inherited: Any = super()
            return inherited._encode_pair(context, continuation)
        try:
            row = self.codec.encode(prompt, continuation)
        except UserError:  # the template would change this answer
            row = self.codec.encode(Prompt(prompt.pieces), continuation)
        answer = row.input_ids[row.prompt_length :] if row.joined else row.labels
        return row.input_ids[: row.prompt_length], answer[:-1] if answer[-1] in self.codec.stop_ids else answer

    def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> Any:
        inherited: Any = super()
        own: Any = self
        longest = own.max_length + 1
        if own.backend == "causal":
            self.cut += sum(len(context) + len(answer) > longest for _, context, answer in requests)
        return inherited._loglikelihood_tokens(requests, **options)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
        inherited: Any = super()
        ends = stop_ids(cast("Any", self).model, self.codec)
        return inherited._model_generate(context, max_length, stop, eos_token_id=ends, **settings)


def harness_model(model: Any, codec: Codec, *, batch_size: int) -> Any:
    """A loaded model as an ``LM`` of lm-evaluation-harness, on the device where it is.

    Args:
        model: A transformers or peft model, in eval mode.
        codec: Of the run.
        batch_size: Number of rows per batch.
    """
    huggingface = importlib.import_module("lm_eval.models.huggingface")
    kind: Any = type("HarnessModel", (RunPrompts, huggingface.HFLM), {"codec": codec, "rendered": {}, "cut": 0})
    backend = "seq2seq" if model.config.is_encoder_decoder else "causal"
    return kind(pretrained=model, tokenizer=codec.tokenizer, backend=backend, batch_size=batch_size)
