"""Gradients for importances that need them, from a calibration text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NEEDS_GRADIENTS = ("taylor",)


@dataclass(frozen=True)
class Calibration:
    """The text that Taylor importance is estimated on: `windows` sequences of `length` tokens, drawn with `seed` from `text`."""

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


def calibrate(model: PreTrainedModel, windows: torch.Tensor) -> None:
    """Accumulate into every parameter's `.grad` the gradient of the mean next-token loss over `windows` [n, length].

    One window at a time, so that memory doesn't grow with the number of windows. Raises UserError if the loss is not finite.
    """
    model.zero_grad(set_to_none=True)
    for window in windows.to(model.device):
        loss = model(input_ids=window[None], labels=window[None], use_cache=False).loss
        if not loss.isfinite():
            raise UserError("calibration: the model's loss on the calibration text is not finite")
        (loss / len(windows)).backward()
