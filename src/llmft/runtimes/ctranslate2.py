"""CTranslate2: the runtime of ``form=ctranslate2``, greedy decoding in batches on CPU or GPU."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmft.data.batching.sampler import length_batches
from llmft.runtimes.runtime import NotInstalledError
from llmft.runtimes.tokenizer_runtime import TokenizerRuntime, load_tokenizer
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

MODEL_CONFIG = "transformers_config.json"  # of the weights that were converted; config.json is CTranslate2's own
MAX_BATCH = 16
# Called for each new token of a batch with its row, the id and (if wanted) the logits [V] that it is the argmax of; returns
# whether the row stops.
Take = Callable[[int, int, Any], bool]


class CTranslate2Runtime(TokenizerRuntime):
    """A converted model, with the tokenizer of its folder.

    Args:
        folder: With ``model.bin``, the vocabulary, tokenizer files and ``generation_config.json``.
        threads: 0 is CTranslate2's own choice.

    Raises:
        NotInstalledError: CTranslate2 is not installed.
        UserError: It cannot load the folder.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        try:
            import ctranslate2
        except ImportError:
            raise NotInstalledError('form=ctranslate2: needs CTranslate2; pip install "llmft[ctranslate2]"') from None
        self.name = f"CTranslate2 {ctranslate2.__version__}"
        super().__init__(*load_tokenizer(folder))
        # a decoder-only model has one vocabulary, an encoder-decoder a shared one
        self.is_encoder_decoder = not (folder / "vocabulary.json").is_file()
        name = "shared_vocabulary.json" if self.is_encoder_decoder else "vocabulary.json"
        engine: Any = ctranslate2.Translator if self.is_encoder_decoder else ctranslate2.Generator
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        try:
            self.config: dict[str, Any] = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
            self.vocabulary: list[str] = json.loads((folder / name).read_text(encoding="utf-8"))
            self.engine = engine(str(folder), device, intra_threads=threads)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{folder}: CTranslate2 cannot load it ({one_line(error)})") from error

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """Logits [len(answer), V]: of one forward pass, or (encoder-decoder) of decoding that is forced to the answer."""
        if not self.is_encoder_decoder:
            ids = [*prompt, *answer[:-1]]
            self._check_window(len(ids))
            return np.array(self.engine.forward_batch([ids]), dtype=np.float32)[0, -len(answer) :]
        rows: list[np.ndarray] = []

        def take(_: int, __: int, logits: Any) -> bool:
            rows.append(logits)
            return False

        self._translate([prompt], [answer], len(answer), take, logits=True, with_prefix=True)
        return np.stack(rows)

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Batches of prompts of similar length."""
        answers: list[list[int]] = [list(self.forced) if self.is_encoder_decoder else [] for _ in prompts]
        for rows in length_batches([len(prompt) for prompt in prompts], max_rows=MAX_BATCH):

            def take(row: int, token: int, _: Any, rows: Sequence[int] = rows) -> bool:
                answers[rows[row]].append(token)
                return False

            self.continued([prompts[row] for row in rows], [answers[row] for row in rows], max_new_tokens, take)
        return answers

    def continued(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        max_tokens: int,
        take: Take,
        *,
        logits: bool = False,
    ) -> None:
        """Decode a batch greedily.

        Args:
            prompts: Their ids.
            answers: The ids that each answer begins with.
            max_tokens: Maximum tokens of an answer, those that it begins with included.
            take: Called in threads of CTranslate2, for each token that is not given in ``answers``.
            logits: Whether ``take`` gets logits.
        """
        texts = (
            prompts
            if self.is_encoder_decoder
            else [[*both[0], *both[1]] for both in zip(prompts, answers, strict=True)]
        )
        # CTranslate2 sorts a batch so, and numbers the rows of the logits by its own order
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))

        def taken(row: int, token: int, found: Any) -> bool:
            return take(order[row], token, found)

        if self.is_encoder_decoder:
            self._translate(
                [prompts[row] for row in order], [answers[row] for row in order], max_tokens, taken, logits=logits
            )
            return
        self._check_window(max(map(len, prompts)))
        with _Steps(taken, [0] * len(prompts), logits=logits) as steps:
            self.engine.generate_batch(
                [self._tokens(texts[row]) for row in order],
                max_length=max_tokens - min(map(len, answers)),
                include_prompt_in_result=False,
                callback=steps.take,
                return_logits_vocab=logits,
                **self._options(),
            )

    def _translate(
        self,
        prompts: Any,
        answers: Any,
        max_tokens: int,
        take: Take,
        *,
        logits: bool = False,
        with_prefix: bool = False,
    ) -> None:
        given = [0 if with_prefix else len(answer) for answer in answers]
        with _Steps(take, given, logits=logits, forced=with_prefix) as steps:
            self.engine.translate_batch(
                [self._tokens(prompt) for prompt in prompts],
                target_prefix=[self._tokens(answer) for answer in answers],
                max_decoding_length=max_tokens,
                min_decoding_length=0,  # its default is 1, and an answer may be empty
                max_input_length=0,
                callback=steps.take,
                return_logits_vocab=logits,
                **self._options(),
            )

    def _check_window(self, tokens: int) -> None:
        """CTranslate2 computes a forward pass right within a sliding window only; decoding is right beyond it.

        Raises:
            UserError: The tokens of one forward pass are more than the window.
        """
        config = self.config
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        if window and "sliding_attention" in config.get("layer_types", ["sliding_attention"]) and tokens > window:
            raise UserError(
                f"{self.name}: a prompt of {tokens} tokens is longer than the model's sliding window ({window}), which"
                " CTranslate2 computes wrongly; use the merged weights"
            )

    def _options(self) -> dict[str, Any]:
        return {"beam_size": 1, "end_token": sorted(self.stop_ids), "return_end_token": True}

    def _tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.vocabulary[token] for token in ids]


class _Steps:
    """CTranslate2's callbacks of one batch, as calls of ``Take``.

    The logits [B, V] of a step come with its first callback, for all rows that have not ended, in order.

    Args:
        take: Called for each new token.
        given: Tokens of each row that are not new.
        logits: Whether ``take`` gets logits.
        forced: Whether tokens are not the argmax of their logits.
    """

    def __init__(self, take: Take, given: Sequence[int], *, logits: bool, forced: bool = False) -> None:
        self.call, self.given, self.with_logits, self.forced = take, given, logits, forced
        self.open = list(range(len(given)))
        self.logits, self.rows = np.empty((0, 0)), [0]
        self.error: Exception | None = None

    def take(self, step: Any) -> bool:
        """Whether a row stops; an exception in a callback would abort the process."""
        if step.batch_id not in self.open:
            return True
        try:
            if self.with_logits and step.logits.shape:
                self.logits, self.rows = np.array(step.logits, dtype=np.float32), list(self.open)
            ends = step.step >= self.given[step.batch_id] and self._taken(step)
        except Exception as error:
            self.error, ends = error, True
        if (ends or step.is_last) and step.batch_id in self.open:
            self.open.remove(step.batch_id)
        return ends

    def _taken(self, step: Any) -> bool:
        logits = None
        if self.with_logits:
            logits = self.logits.reshape(len(self.rows), -1)[self.rows.index(step.batch_id)]
            if not self.forced and logits[step.token_id] < logits.max():
                raise RuntimeError("CTranslate2 orders the logits of a batch otherwise than expected")
        return self.call(step.batch_id, step.token_id, logits)

    def __enter__(self) -> "_Steps":
        return self

    def __exit__(self, *_: object) -> None:
        """Release ``call``, and raise the first exception of a callback.

        A thread of CTranslate2 releases ``take`` later. If that were the last reference to the engine, the engine would wait
        for its own thread, and the process would abort ("Resource deadlock avoided").
        """
        self.call = _ended
        error, self.error = self.error, None
        if error is not None:
            raise error


def _ended(row: int, token: int, logits: Any) -> bool:  # noqa: ARG001
    return True
