"""Token perplexity on a text, window by window, and the paired interval of its ratio between two models.

Protocol. The text is tokenised once, without special tokens. Windows of `window` tokens start every `stride` tokens.
Each window is scored on its own; if the tokenizer prepends a BOS token to text, every window gets one. Scored are the
tokens of a window that no earlier window scored, given all that stand before them in the window; the first token of a
window without BOS has no context and is not scored. The tail that is shorter than a window is dropped. Perplexity is
exp of the summed negative log-likelihood over the number of scored tokens: per token, not per window or word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed, UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PerplexityProtocol:
    """What has to be equal for two perplexities to be comparable, beside text and tokenizer: see the module's
    docstring.
    """

    window: int = 512
    stride: int = 512
    windows: int = 8

    @property
    def tokens(self) -> int:
        """How many tokens of the text the windows span."""
        return self.window + (self.windows - 1) * self.stride


@dataclass(frozen=True)
class Perplexity:
    """Negative log-likelihoods of one model: per window the sum in nats and the number of scored tokens."""

    nll: tuple[float, ...]
    scored: tuple[int, ...]

    @property
    def value(self) -> float:
        """Perplexity per token; inf where exp overflows."""
        mean = sum(self.nll) / sum(self.scored)
        return math.exp(mean) if mean < 700 else math.inf


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str) -> torch.Tensor:
    """Token ids [n] of a text, without special tokens. Raises UserError if there are none."""
    import torch

    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids:
        raise UserError("the evaluation text has no tokens: it is empty")
    return torch.tensor(ids, dtype=torch.long)


def bos_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The BOS token that this tokenizer puts before every text by itself, or None."""
    ids = tokenizer("a", verbose=False)["input_ids"]
    bos = tokenizer.bos_token_id
    return bos if bos is not None and ids and ids[0] == bos else None


def windows_of(tokens: torch.Tensor, protocol: PerplexityProtocol) -> torch.Tensor:
    """The protocol's windows [windows, window] of `tokens` [n], as many as there are up to `protocol.windows`.

    Raises UserError if the text is shorter than one window.
    """
    if len(tokens) < protocol.window:
        raise UserError(f"the evaluation text has {len(tokens)} tokens, fewer than one window of {protocol.window}")
    return tokens[: protocol.tokens].unfold(0, protocol.window, protocol.stride)


def measure(model: PreTrainedModel, windows: torch.Tensor, protocol: PerplexityProtocol, bos: int | None) -> Perplexity:
    """Score every window [n, window] with `model`, one at a time. Raises CheckFailed if a likelihood is NaN or
    infinite.
    """
    import torch

    nll, scored = [], []
    with torch.inference_mode():
        for index, window in enumerate(windows):
            fresh = protocol.window if index == 0 else protocol.stride
            loss, count = _window_nll(model, window.to(model.device), fresh, bos)
            if not math.isfinite(loss):
                raise CheckFailed(
                    f"perplexity: the likelihood of window {index} is {loss}; the model's logits are not finite"
                )
            nll.append(loss)
            scored.append(count)
    return Perplexity(tuple(nll), tuple(scored))


def _window_nll(model: Any, window: torch.Tensor, fresh: int, bos: int | None) -> tuple[float, int]:
    """Sum of nats and count over the last `fresh` tokens of a window [n] that have something before them."""
    import torch

    if bos is not None:
        window = torch.cat([window.new_tensor([bos]), window])
    count = min(fresh, len(window) - 1)
    logits = model(input_ids=window[None], use_cache=False).logits[0, -count - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits.float(), window[-count:], reduction="sum")
    return loss.item(), count


@dataclass(frozen=True)
class Ratio:
    """A ratio of two perplexities with its paired bootstrap interval."""

    value: float
    low: float
    high: float


def ratio(
    pruned: Perplexity, dense: Perplexity, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Ratio:
    """pruned / dense over the same windows, with the percentile interval over `draws` resamples of whole windows (Efron
    & Tibshirani 1993).

    Raises CheckFailed if the two were not measured on windows of the same sizes.
    """
    import torch

    if pruned.scored != dense.scored:
        raise CheckFailed("perplexity: pruned and dense were scored on different windows, so they can't be compared")
    difference = torch.tensor(pruned.nll, dtype=torch.float64) - torch.tensor(dense.nll, dtype=torch.float64)
    weights = torch.tensor(dense.scored, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(weights), (draws, len(weights)), generator=generator)
    logs = (difference[picks].sum(1) / weights[picks].sum(1)).sort().values
    tail = (1 - confidence) / 2
    low, high = logs[int(tail * draws)].item(), logs[min(draws - 1, int((1 - tail) * draws))].item()
    centre = (difference.sum() / weights.sum()).item()
    return Ratio(_exp(centre), _exp(low), _exp(high))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
