"""Load the model that a spec names: built in, from a hub, from a directory or GGUF file, random, or without weights at
all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..resources import data_dir
from . import smollm2
from .gguf import dtype_argument, load_gguf
from .layout import decoder_layers, shape_of
from .spec import ModelSpec, config_values

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to trace and prune, with its tokenizer where weights are pretrained."""

    spec: ModelSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    device: torch.device
    dtype: torch.dtype


def load(spec: ModelSpec, *, seed: int = 0) -> LoadedModel:
    """Load `spec`. A model of random or meta weights has no tokenizer.

    Raises UserError for every fault of the input: an absent device, a corrupt or incomplete checkpoint, a missing
    tokenizer, weights that are not finite, a config that transformers refuses, a model that is no causal one of the
    Llama family.
    """
    device, dtype = resolve_device(spec), resolve_dtype(spec)
    if spec.weights == "pretrained":
        model, tokenizer = _load_pretrained(spec, device, dtype)
        _check_family(model, spec)
        _check_finite(model, spec)
        _check_vocabulary(model, tokenizer, spec)
        return LoadedModel(spec, model.eval(), tokenizer, model.device, dtype)
    model = _build(load_config(spec), spec, seed, device, dtype)
    _check_family(model, spec)
    return LoadedModel(spec, model.eval(), None, model.device, dtype)


def resolve_device(spec: ModelSpec) -> torch.device:
    """The torch device of a spec: `auto` is cuda where there is one, else cpu; meta weights lie on meta.

    Raises UserError if the device is not there.
    """
    import torch

    if spec.weights == "meta":
        return torch.device("meta")
    if spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(spec.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {spec.device!r}: torch sees {torch.cuda.device_count()} CUDA devices on this machine")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps': torch sees no Metal device on this machine")
    return device


def resolve_dtype(spec: ModelSpec) -> torch.dtype:
    """The torch dtype of a spec: `auto` is float32 on cpu and mps, bfloat16 on cuda, bfloat16 on meta (it only counts
    bytes there).
    """
    import torch

    if spec.dtype != "auto":
        dtype: torch.dtype = getattr(torch, spec.dtype)
        return dtype
    return torch.float32 if resolve_device(spec).type in ("cpu", "mps") else torch.bfloat16


def load_config(spec: ModelSpec) -> PreTrainedConfig:
    """The config of a spec, from this machine if it lies here, else from the hub. Raises UserError without one, and for
    one that is not of the Llama family.
    """
    config = _read_config(spec)
    try:
        shape_of(config)
    except UserError as error:
        raise UserError(f"model {spec.name!r}: {error}") from None
    return config


def _read_config(spec: ModelSpec) -> PreTrainedConfig:
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    values = config_values(spec)
    with _one_line(spec):
        if values is None and spec.path is not None:  # GGUF
            return AutoConfig.from_pretrained(spec.path.parent, gguf_file=spec.path.name)
        if values is None:
            return AutoConfig.from_pretrained(
                spec.name, revision=spec.revision, trust_remote_code=spec.trust_remote_code
            )
        values = dict(values)
        model_type = values.pop("model_type", None)
        if model_type is None:
            raise UserError(f"model {spec.name!r}: its config names no model_type")
        if model_type not in CONFIG_MAPPING:
            raise UserError(f"model {spec.name!r}: transformers {__version__} knows no model_type {model_type!r}")
        return AutoConfig.for_model(model_type, **values)


def build_on_meta(config: PreTrainedConfig, *, trust_remote_code: bool = False, **arguments: Any) -> PreTrainedModel:
    """The model of a config on the meta device: every size, no weights. arguments: of `from_config`, e.g. its dtype.

    Attention is eager: masking code for the other kinds reads values, and there are none.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", trust_remote_code=trust_remote_code, **arguments
        ).eval()


def meta_model(config: PreTrainedConfig, spec: ModelSpec) -> PreTrainedModel:
    """A model of `config` on the meta device, whatever weights `spec` names. Raises UserError if transformers builds
    none.
    """
    spec = replace(spec, weights="meta")
    return _build(config, spec, 0, resolve_device(spec), resolve_dtype(spec)).eval()


def _load_pretrained(
    spec: ModelSpec, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = spec.path
    if path is not None and path.suffix == ".gguf":
        with _one_line(spec):
            model, tokenizer = load_gguf(path)
        return model.to(device=device, dtype=dtype), tokenizer
    if path is not None and path.is_file():
        raise UserError(f"model {spec.name!r}: a config has no weights; add --llmprune-weights random or meta")
    source = {"tiny": data_dir() / "tiny-llama", "smollm2": None}.get(spec.name, path or spec.name)
    if spec.name == "smollm2":
        source = smollm2.checkpoint()
    where = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    with _one_line(spec, "its tokenizer can't be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
    with _one_line(spec):
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            **where,
            **dtype_argument(dtype),
            **_placement(spec, device, dtype),
            use_safetensors=True,
            output_loading_info=True,
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(f"model {spec.name!r}: the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}")
    return (model if hasattr(model, "hf_device_map") else model.to(device)), tokenizer


def _placement(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """`device_map` for from_pretrained: one GPU if the weights fit it with room to work, else spread by accelerate."""
    import torch

    if device.type != "cuda":
        return {}
    if spec.device == "auto":
        empty = build_on_meta(load_config(spec), trust_remote_code=spec.trust_remote_code)
        needed = sum(p.numel() for p in empty.parameters()) * dtype.itemsize
        if needed > 0.7 * torch.cuda.mem_get_info(device)[0]:
            return {"device_map": "auto"}
    return {"device_map": {"": device}}


def _build(
    config: PreTrainedConfig, spec: ModelSpec, seed: int, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    arguments = {"trust_remote_code": spec.trust_remote_code, **dtype_argument(dtype)}
    if device.type == "meta":
        with _one_line(spec):
            return build_on_meta(config, **arguments)
    with _one_line(spec), torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, **arguments)


def _check_family(model: PreTrainedModel, spec: ModelSpec) -> None:
    try:
        decoder_layers(model)
        shape_of(model.config)
    except UserError as error:
        raise UserError(f"model {spec.name!r}: {error}") from None


def _check_finite(model: PreTrainedModel, spec: ModelSpec) -> None:
    for name, parameter in model.named_parameters():
        if parameter.device.type != "meta" and not parameter.isfinite().all():
            raise UserError(
                f"model {spec.name!r}: {name} holds NaN or infinite weights; nothing measured on it would mean anything"
            )


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: ModelSpec) -> None:
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"model {spec.name!r}: the tokenizer has {len(tokenizer)} tokens, the model's vocabulary"
            f" {model.config.vocab_size}; they don't belong together"
        )


@contextmanager
def _one_line(spec: ModelSpec, what: str = "it can't be loaded") -> Iterator[None]:
    """Turn whatever transformers, safetensors or the hub raise into one line for the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(
            f"model {spec.name!r}: {what}: out of memory; try a smaller dtype or --llmprune-weights meta"
        ) from None
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise UserError(f"model {spec.name!r}: {what}: {reason}") from error
