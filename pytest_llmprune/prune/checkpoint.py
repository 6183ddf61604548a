"""Save a pruned model so that plain transformers reads it back, and prove that it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Write a checkpoint (safetensors and config) that `AutoModelForCausalLM.from_pretrained` reads. Returns `folder`.

    transformers >= 5 refuses a Llama whose hidden size is no multiple of its heads, though head_dim is given (576
    channels, 7 heads). A Mistral without a sliding window computes the same from the same weights and has no such rule,
    so such a Llama is written as one. Raises CheckFailed if no config that can be read back describes the model;
    nothing is written then.
    """
    readable = _readable(model)
    readable.save_pretrained(folder, safe_serialization=True) if _takes_safe_serialization(
        readable
    ) else readable.save_pretrained(folder)
    return folder


def _takes_safe_serialization(model: Any) -> bool:
    import transformers
    from packaging.version import Version

    return Version(transformers.__version__) < Version("5")


def readable_config(config: Any) -> Any:
    """The config that a checkpoint is written with: `config`, or a Mistral's if plain transformers refuses it (see
    `save`).

    Raises CheckFailed if no config that can be read back says the same.
    """
    refusal = _refusal(config)
    if refusal is None:
        return config
    if config.model_type != "llama" or config.attention_bias or getattr(config, "mlp_bias", False):
        raise CheckFailed(f"no checkpoint was written: its config could not be read back: {refusal}")
    from transformers import MistralConfig

    values = {
        k: v
        for k, v in config.to_dict().items()
        if k not in ("model_type", "architectures", "attention_bias", "mlp_bias")
    }
    return MistralConfig(**values, sliding_window=None, architectures=["MistralForCausalLM"])


def _readable(model: PreTrainedModel) -> PreTrainedModel:
    config = readable_config(model.config)
    if config is model.config:
        return model
    import torch
    from transformers import MistralForCausalLM

    with torch.device("meta"):
        twin = MistralForCausalLM(config)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    twin.generation_config = model.generation_config
    return twin


def _refusal(config: Any) -> str | None:
    """Why a config can't be made from its own values, or None."""
    try:
        type(config)(**config.to_dict())
    except Exception as error:  # transformers' strict dataclasses raise types of their own
        lines = str(error).strip().splitlines()
        return lines[-1].strip() if lines else type(error).__name__
    return None


def logits_in_fresh_process(folder: Path, ids: torch.Tensor, dtype: str) -> tuple[torch.Tensor, bool]:
    """Load a checkpoint by plain transformers in a new Python process. Returns its logits for `ids` [n, length], and
    whether its embeddings are tied.

    Raises CheckFailed with the last line of what that process printed if it can't.
    """

    given, found = folder / "ids.pt.safetensors", folder / "logits.pt.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({"ids": ids.cpu()}, given)
    command = [sys.executable, "-c", _READER, str(folder), str(given), str(found), dtype]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines()
        raise CheckFailed(f"a fresh process can't load the checkpoint: {lines[-1] if lines else process.returncode}")
    tensors: dict[str, torch.Tensor] = load_file(found)
    return tensors["logits"], bool(tensors["tied"].item())


_READER = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder, given, found, dtype = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=getattr(torch, dtype)).eval()
with torch.inference_mode():
    logits = model(input_ids=load_file(given)["ids"]).logits
tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
save_file({"logits": logits.clone(), "tied": torch.tensor(tied)}, found)
"""
