"""Token perplexity on a text, window by window, and the paired interval of its ratio between two models.

Protocol. The text is tokenised once, without special tokens. Windows of `window` tokens start every `stride` tokens.
Each window is scored on its own; if the tokenizer prepends a BOS token to text, every window gets one. Scored are the
tokens of a window that no earlier window scored, given all that stand before them in the window; the first token of a
window without BOS has no context and is not scored. The tail that is shorter than a window is dropped. Perplexity is
exp of the summed negative log-likelihood over the number of scored tokens: per token, not per window or word.

With `rolling` it is lm-evaluation-harness's `loglikelihood_rolling` instead: the whole text, every token predicted
exactly once, the first from a prefix token (BOS, or end of text where there is none), every window's first from the
last token of the window before, and the last window reaching back so that it is full. A BOS token that the tokenizer
puts before a text is then a token of the text like any other, predicted from the prefix, as it is there.

One look. How many windows there are is settled by profile and text before anything is measured, and the interval is
taken once, of all of them; there is nothing to correct for, and no drawing of more windows until it decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed, UserError
from .likelihood import Window, window_nlls

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIDENCE = 0.95
FEWEST_WINDOWS = 5


@dataclass(frozen=True)
class PerplexityProtocol:
    """What has to be equal for two perplexities to be comparable, beside text and tokenizer: see the module's
    docstring. `stride` and `windows` (the most that are taken) don't apply where it is rolling.
    """

    window: int = 512
    stride: int = 512
    windows: int = 8
    rolling: bool = False


@dataclass(frozen=True)
class Perplexity:
    """Negative log-likelihoods of one model: per window the sum in nats and the number of scored tokens."""

    nll: tuple[float, ...]
    scored: tuple[int, ...]

    @property
    def value(self) -> float:
        """Perplexity per token; inf where exp overflows."""
        return _exp(sum(self.nll) / sum(self.scored))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Perplexity:
        """The inverse of `asdict`."""
        return cls(tuple(values["nll"]), tuple(values["scored"]))


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> list[int]:
    """Token ids of a text, with the special tokens that the tokenizer adds to a text if `special` (as rolling
    perplexity wants it). Raises UserError if there are none.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    if not ids:
        raise UserError("the text has no tokens for this tokenizer")
    return ids


def prefix_of(tokenizer: PreTrainedTokenizerBase, protocol: PerplexityProtocol) -> int | None:
    """The token that stands before a text: the BOS token if this tokenizer puts it there by itself, or None; where the
    protocol is rolling BOS in any case, or end of text where there is none.
    """
    bos: int | None = tokenizer.bos_token_id
    if protocol.rolling:
        return tokenizer.eos_token_id if bos is None else bos
    ids = tokenizer("a", verbose=False)["input_ids"]
    return bos if bos is not None and ids and ids[0] == bos else None


def windows_of(tokens: Sequence[int], protocol: PerplexityProtocol, prefix: int | None) -> list[Window]:
    """The protocol's windows of a text's token ids. prefix: from `prefix_of`.

    Raises UserError if the text is shorter than one window, or too short for an interval.
    """
    windows = _rolling(tokens, protocol, prefix) if protocol.rolling else _strided(tokens, protocol, prefix)
    if len(windows) < FEWEST_WINDOWS:
        raise UserError(
            f"the evaluation text has {len(tokens)} tokens, which make {len(windows)} windows of {protocol.window}; an"
            f" interval needs at least {FEWEST_WINDOWS}, so give a longer text"
        )
    return windows


def _strided(tokens: Sequence[int], protocol: PerplexityProtocol, bos: int | None) -> list[Window]:
    before = () if bos is None else (bos,)
    starts = range(0, len(tokens) - protocol.window + 1, protocol.stride)[: protocol.windows]
    windows = []
    for start in starts:
        ids = (*before, *tokens[start : start + protocol.window])
        fresh = protocol.stride if start else protocol.window
        windows.append(Window(ids, min(fresh, len(ids) - 1)))
    return windows


def _rolling(tokens: Sequence[int], protocol: PerplexityProtocol, prefix: int | None) -> list[Window]:
    if prefix is None:
        raise UserError("rolling perplexity needs a BOS or an end-of-text token, and the tokenizer has neither")
    ids = (prefix, *tokens)
    windows = []
    for start in range(0, len(tokens), protocol.window):
        end = min(start + protocol.window, len(tokens))
        windows.append(Window(tuple(ids[max(0, end - protocol.window) : end + 1]), end - start))
    return windows


def measure(model: PreTrainedModel, windows: Sequence[Window]) -> Perplexity:
    """Score every window with `model`. Raises CheckFailed if a likelihood is NaN or infinite."""
    nll = []
    for index, loss in enumerate(window_nlls(model, windows)):
        if not math.isfinite(loss):
            raise CheckFailed(
                f"perplexity: the likelihood of window {index} is {loss}; the model's logits are not finite"
            )
        nll.append(loss)
    return Perplexity(tuple(nll), tuple(window.scored for window in windows))


@dataclass(frozen=True)
class Ratio:
    """A ratio of two perplexities with its paired bootstrap interval."""

    value: float
    low: float
    high: float


def ratio(
    pruned: Perplexity, dense: Perplexity, *, confidence: float = CONFIDENCE, draws: int = 10_000, seed: int = 0
) -> Ratio:
    """pruned / dense over the same windows, with the percentile interval over `draws` resamples of whole windows (Efron
    & Tibshirani 1993), its tails widened as few windows ask for (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", expanded percentile). seed: of the resampling; another one changes no more than the interval's last
    digits.

    Raises CheckFailed if the two were not measured on windows of the same sizes, or on fewer than two.
    """
    import torch

    if pruned.scored != dense.scored:
        raise CheckFailed("perplexity: pruned and dense were scored on different windows, so they can't be compared")
    n = len(dense.scored)
    if n < 2:
        raise CheckFailed(f"perplexity: {n} windows have no interval")
    difference = torch.tensor(pruned.nll, dtype=torch.float64) - torch.tensor(dense.nll, dtype=torch.float64)
    weights = torch.tensor(dense.scored, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(n, (draws, n), generator=generator)
    logs = (difference[picks].sum(1) / weights[picks].sum(1)).sort().values
    tail = NormalDist().cdf(math.sqrt(n / (n - 1)) * student_quantile((1 - confidence) / 2, n - 1))
    low, high = logs[int(tail * draws)].item(), logs[draws - 1 - int(tail * draws)].item()
    return Ratio(*map(_exp, ((difference.sum() / weights.sum()).item(), low, high)))


def student_quantile(probability: float, freedom: int) -> float:
    """Student's t by Cornish and Fisher's expansion (Abramowitz & Stegun 26.7.5): within 0.3% at 95% from 4 degrees of
    freedom on, 0.8% at 3, and exact at 2.
    """
    if freedom == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
