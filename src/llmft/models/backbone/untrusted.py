"""Checks of models and adapters from untrusted sources, before and after loading; faults are one-line UserErrors."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmft.utils.errors import UserError
from llmft.utils.text import one_line

MAX_JSON = 2**26  # bytes of a config; those of published models have thousands
INDEX = "model.safetensors.index.json"
# Settings that an adapter may have. Others of peft would load more files, call other libraries, or change the base.
ALLOWED = {
    *("r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "fan_in_fan_out", "use_dora", "use_rslora"),
    *("trainable_token_indices", "base_model_name_or_path", "revision", "inference_mode", "peft_type", "peft_version"),
}


def check_model(folder: Path, *, code: bool) -> None:
    """Refuse a model with code of its own, or whose weights are not safetensors in its own folder.

    Args:
        folder: With ``config.json``.
        code: Whether the user allows code of its own (``model.trust_remote_code``).

    Raises:
        UserError: It has either, or a config is no JSON object.
    """
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in json_object(folder / name) and not code:
            raise UserError(
                f"{folder}: brings code of its own (auto_map in {name}), which is not run; if you have read it and trust it: "
                "model.trust_remote_code=true on the command line"
            )
    parts = json_object(folder / INDEX).get("weight_map", {})
    if not isinstance(parts, dict):
        raise UserError(f"{folder / INDEX}: weight_map must name the file of each weight")
    for part in set(map(str, parts.values())):
        if not part.endswith(".safetensors") or "/" in part or "\\" in part:
            raise UserError(f"{folder / INDEX}: {part[:100]!a} is no safetensors file of this folder")


def base_of_adapter(folder: Path) -> str:
    """The model that an adapter was trained on, as its config names it; empty if it does not.

    Raises:
        UserError: The config is no JSON object.
    """
    return str(json_object(folder / "adapter_config.json").get("base_model_name_or_path") or "")


def check_loaded(path: str, info: Mapping[str, Any]) -> None:
    """Refuse a model whose files lack weights; transformers initializes those at random.

    Args:
        path: Of the model.
        info: The loading info of ``from_pretrained``.

    Raises:
        UserError: Weights are missing, or have other shapes.
    """
    if wrong := sorted(info["mismatched_keys"]):
        name, found, wanted = wrong[0]
        more = f" ({len(wrong)} weights differ)" if len(wrong) > 1 else ""
        raise UserError(
            f"model.path={path}: its files do not fit its config.json: {name} has shape {list(found)}, "
            f"the config makes it {list(wanted)}{more}"
        )
    if missing := sorted(map(str, info["missing_keys"])):
        raise UserError(
            f"model.path={path}: its files lack {len(missing)} weights of this architecture, the first {missing[0]}"
        )


def load_adapter(base: Any, folder: Path, tokens: int) -> Any:
    """Load the LoRA adapter of a folder on its base, frozen.

    Args:
        base: The model that it was trained on.
        folder: With ``adapter_config.json`` and ``adapter_model.safetensors``.
        tokens: Vocabulary size of the tokenizer in that folder.

    Raises:
        UserError: It is not plain LoRA, or its base, rank or vocabulary does not match.
    """
    from peft import PeftModel, get_peft_model_state_dict

    rows = base.get_input_embeddings().weight.shape[0]
    if tokens > rows:
        raise UserError(
            f"{folder}: its tokenizer has {tokens} tokens, its base {rows}; the vocabulary belongs to another base"
        )
    config = adapter_config(folder)
    weights = adapter_weights(folder)
    if faults := list(_rank_faults(config, weights)):
        raise UserError(f"{folder}: {faults[0]}")
    try:
        # by default peft puts the weights on a GPU first, also for a model that stays on the CPU
        model = PeftModel.from_pretrained(base, folder, config=config, torch_device=str(base.device))
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{folder}: the adapter does not fit the base model ({one_line(error)})") from None
    if odd := sorted(get_peft_model_state_dict(model, save_embedding_layers=False).keys() ^ weights.keys()):
        raise UserError(f"{folder}: the adapter is of another base model; only one of the two has {odd[0]}")
    return model


def adapter_config(folder: Path) -> Any:
    """The LoRA config of a folder; no file that it names is opened.

    Raises:
        UserError: It has settings other than those of plain LoRA.
    """
    from peft import LoraConfig

    given = json_object(folder / "adapter_config.json")
    if given.get("peft_type") != "LORA":
        raise UserError(f"{folder}: adapter_config.json must be of LoRA, got {given.get('peft_type')!r:.60}")
    plain = LoraConfig(task_type="CAUSAL_LM").to_dict()
    for name, value in given.items():
        if name not in ALLOWED and value not in (plain.get(name), None, [], {}, False):
            raise UserError(f"{folder}: adapter_config.json sets {name[:60]!a}, which is not taken; only plain LoRA is")
    rank, layers = given.get("r"), given.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= 65536:
        raise UserError(f"{folder}: adapter_config.json: r must be a whole number from 1 on, got {rank!r:.60}")
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise UserError(f"{folder}: adapter_config.json: target_modules must be a list of names")
    try:
        return LoraConfig(
            **{name: value for name, value in given.items() if name in ALLOWED - {"peft_type", "peft_version"}}
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder}: adapter_config.json cannot be used ({one_line(error)})") from None


def adapter_weights(folder: Path) -> dict[str, Any]:
    """The weights of an adapter, from safetensors only.

    Raises:
        UserError: There is no such file, it is broken, or a weight is no floating-point number, NaN or infinite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: {file.name} cannot be read ({one_line(error)})") from None
    _check_values(file, weights.items())
    return weights


def check_trained(model: Any, folder: Path) -> None:
    """Refuse trained weights that are NaN or infinite: such a model answers with one token over and over.

    Args:
        model: Loaded from the folder.
        folder: ``model/`` of a run, with all weights.

    Raises:
        UserError: Names the first such weight, or one whose file holds integers.
    """
    from safetensors import safe_open

    names = {name for name, _ in model.named_parameters()}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            kinds = {name: weights.get_slice(name).get_dtype() for name in weights.keys() if name in names}  # noqa: SIM118
        for name in (name for name, kind in kinds.items() if "F" not in kind):
            raise UserError(f"{file}: {name} is {kinds[name]}, and a weight must be a floating-point number")
    _check_values(folder, model.named_parameters())


def _check_values(place: Path, weights: Iterable[tuple[str, Any]]) -> None:
    for name, weight in weights:
        if not weight.is_floating_point():
            raise UserError(f"{place}: {name[:200]} is {weight.dtype}, and a weight must be a floating-point number")
        if not weight.isfinite().all():
            raise UserError(f"{place}: {name[:200]} holds NaN or infinity; put a copy of the file back, or train again")


def _rank_faults(config: Any, weights: Mapping[str, Any]) -> Iterator[str]:
    for name, weight in weights.items():
        if name.endswith("lora_A.weight") and weight.shape[0] != config.r:
            yield f"the adapter's weights have rank {weight.shape[0]}, its adapter_config.json says r={config.r}"


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of somebody else; empty if there is no such file.

    Raises:
        UserError: The file is too large, no JSON, or no object.
    """
    try:
        if file.stat().st_size > MAX_JSON:
            raise ValueError(f"it has more than {MAX_JSON:,} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: must be a JSON object")
    return found
