"""Gradients for importances that need them, from a calibration text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..models.layout import decoder_layers, shape_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NEEDS_GRADIENTS = ("taylor",)


@dataclass(frozen=True)
class Calibration:
    """The text that Taylor importance is estimated on: `windows` sequences of `length` tokens, drawn with `seed` from
    `text`.
    """

    text: str
    windows: int = 8
    length: int = 256
    seed: int = 0


def calibration_windows(tokens: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    """Token windows [windows, length], without overlap, chosen from `tokens` [n] with the calibration's seed.

    Raises UserError if the text is too short.
    """
    import torch

    available = len(tokens) // calibration.length
    if available < calibration.windows:
        raise UserError(
            f"the calibration text has {len(tokens)} tokens; {calibration.windows} windows of {calibration.length} need"
            f" {calibration.windows * calibration.length}"
        )
    generator = torch.Generator().manual_seed(calibration.seed)
    chosen = torch.randperm(available, generator=generator)[: calibration.windows]
    return tokens[: available * calibration.length].reshape(available, calibration.length)[chosen]


def calibrate(model: PreTrainedModel, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Accumulate into every parameter's `.grad` the gradient of the mean next-token loss over `windows` [n, length].

    Returns, per decoder layer's name, the Taylor importance of its kv groups [kv_heads]: the first-order change of the
    loss if all query heads of the group were silenced at one token, |sum of activation x gradient| at o_proj's input,
    summed over tokens (the head importance of Michel et al. 2019, by token instead of by sample). torch-pruning's own
    sum over single weights ranks kv groups badly: see docs/decisions.md.

    One window at a time, so that memory doesn't grow with the number of windows. Raises UserError if the loss is not
    finite.
    """
    model.zero_grad(set_to_none=True)
    shape = shape_of(model.config)
    scores: dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        def before_output_projection(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            heads = inputs[0]
            values = heads.detach()

            def on_gradient(gradient: torch.Tensor) -> None:
                by_group = (values * gradient).float().unflatten(-1, (shape.kv_heads, -1)).sum(-1)
                total = by_group.abs().sum(dim=tuple(range(by_group.dim() - 1)))
                scores[name] = scores.get(name, 0) + total

            heads.register_hook(on_gradient)

        return before_output_projection

    hooks = [layer.o.register_forward_pre_hook(listen(layer.name)) for layer in decoder_layers(model)]
    try:
        for window in windows.to(model.device):
            loss = model(input_ids=window[None], labels=window[None], use_cache=False).loss
            if not loss.isfinite():
                raise UserError("calibration: the model's loss on the calibration text is not finite")
            (loss / len(windows)).backward()
    finally:
        for hook in hooks:
            hook.remove()
    return scores
