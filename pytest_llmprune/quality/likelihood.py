"""Negative log-likelihoods token by token, without ever holding a window's logits over the vocabulary.

The decoder runs once and leaves its last hidden state; the head turns that into logits a chunk of tokens at a time. The
matrix products keep the model's dtype, everything after them is float32, and sums over tokens are float64. Rows are
batched by tokens: one window keeps a CPU busy, a GPU takes many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CHUNK_LOGITS = 2**22  # 16 MiB in float32
TOKENS_PER_BATCH = {"cuda": 16384}


@dataclass(frozen=True)
class Window:
    """Token ids [n], of which the last `scored` are predicted, each from all that stand before it."""

    ids: tuple[int, ...]
    scored: int


def window_nlls(model: PreTrainedModel, windows: Sequence[Window]) -> Iterator[float]:
    """The summed negative log-likelihood (nats) of every window's scored tokens, in order. Raises UserError as
    `head_of` does.
    """
    import torch

    head = head_of(model)
    with torch.inference_mode():
        for (length, scored), same in groupby(windows, key=lambda window: (len(window.ids), window.scored)):
            rows = [window.ids for window in same]
            size = max(1, TOKENS_PER_BATCH.get(model.device.type, 0) // length)
            for start in range(0, len(rows), size):
                ids = torch.tensor(rows[start : start + size], device=model.device)
                yield from token_nlls(model, head, ids, scored).double().sum(1).tolist()


def token_nlls(
    model: PreTrainedModel,
    head: Callable[[torch.Tensor], torch.Tensor],
    ids: torch.Tensor,
    scored: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Nats [batch, scored], float32, of the last `scored` tokens of every row of `ids` [batch, length]. mask [batch,
    length]: 0 where a row is padded on the left. head: from `head_of`.
    """
    import torch

    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    hidden, targets = hidden[:, -scored - 1 : -1].flatten(0, 1), ids[:, -scored:].flatten()
    size = max(1, CHUNK_LOGITS // model.config.vocab_size)
    losses = []
    for some, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = head(some).float()
        losses.append(torch.nn.functional.cross_entropy(logits, wanted.to(logits.device), reduction="none"))
    return torch.cat(losses).view(len(ids), scored)


def head_of(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns a model's last hidden state [n, hidden] into its logits [n, vocabulary]: the output embeddings, and
    the soft cap of Gemma 2 (Gemma Team 2024).

    Raises UserError if that doesn't give the model's own logits: an architecture with a head that isn't known here.
    """
    import torch

    embeddings, cap = model.get_output_embeddings(), getattr(model.config, "final_logit_softcapping", None)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = embeddings(hidden)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    hidden: list[torch.Tensor] = []
    hook = model.base_model.register_forward_hook(lambda _m, _inputs, output: hidden.append(output[0]))
    try:
        with torch.inference_mode():
            ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
            own = model(input_ids=ids, use_cache=False).logits
            ours = head(hidden[0])
    finally:
        hook.remove()
    # NaN is a fault of the model's, and is found where likelihoods are summed
    if not torch.allclose(own.float(), ours.float().to(own.device), rtol=1e-2, atol=1e-2, equal_nan=True):
        raise UserError(
            f"{type(model).__name__} makes its logits from its last hidden state in a way that isn't known here, so"
            " likelihoods can't be measured"
        )
    return head
