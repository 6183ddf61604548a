"""Read a GGUF file into a plain model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from ..errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A plain float32 model and tokenizer from a GGUF file (a model as transformers loads it refuses save_pretrained).

    Raises UserError if the `gguf` package is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError(f"{file.name}: reading GGUF needs: pip install 'pytest-llmprune[gguf]'") from None
    quantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, **dtype_argument(torch.float32))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = type(quantized.config)(**{**quantized.config.to_dict(), "quantization_config": None})
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(quantized)(config)
    plain.load_state_dict(quantized.state_dict())
    plain.tie_weights()
    return plain.eval(), tokenizer


def dtype_argument(dtype: torch.dtype) -> dict[str, Any]:
    """The keyword that carries the dtype into from_pretrained: renamed in transformers 4.56."""
    import transformers

    return {"dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype": dtype}
