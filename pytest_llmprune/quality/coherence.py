"""Is what a pruned model writes still language? Continuations of shipped prompts, measured against what dense writes
after the same prompts.

Every prompt is continued twice, greedily and sampled with a fixed seed, by a fixed number of tokens. A continuation's
score lies in [0, 1]:

    score     = fluency x variety x cleanness
    fluency   = exp(-max(0, teacher_nll - dense) / 2)
    variety   = min(1, (1 - rep4) / (1 - dense))
    cleanness = 1 - garble

teacher_nll is the mean negative log-likelihood (nats/token) that the dense model gives the continuation, rep4 the share
of 4-grams of tokens that repeat an earlier one (seq-rep-4, Welleck et al. 2020); `dense` is what dense's own
continuations of the same kind have there. garble is the share of characters that are controls, replacement characters,
unassigned, or letters of a script that dense never used.

A model's coherence is the mean over its continuations. Dense itself scores below 1, since its continuations differ;
gates compare with that.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed, UserError
from ..resources import data_dir
from .likelihood import head_of, token_nlls

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NLL_SCALE = 2.0
TEMPERATURE, TOP_P = 0.7, 0.95


@dataclass(frozen=True)
class CoherenceProtocol:
    """What has to be equal for two coherences to be comparable: the prompts, how many tokens follow each, and the
    sampling seed.
    """

    prompts: tuple[str, ...]
    new_tokens: int = 40
    seed: int = 0


@dataclass(frozen=True)
class Continuation:
    """One continuation and its parts; `score` is set by `score_against`."""

    prompt: str
    text: str
    kind: str
    rep4: float
    garble: float
    teacher_nll: float
    score: float = math.nan

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Coherence:
    """The coherence of one model: the mean score in [0, 1], its parts, and every continuation, the worst first."""

    value: float
    rep4: float
    distinct2: float
    garble: float
    teacher_nll: float
    continuations: tuple[Continuation, ...]

    @property
    def worst(self) -> Continuation:
        return self.continuations[0]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Coherence:
        """The inverse of `asdict`."""
        return cls(**{**values, "continuations": tuple(Continuation(**c) for c in values["continuations"])})


def shipped_prompts(name: str) -> tuple[str, ...]:
    """The prompts of `fixtures/prompts/NAME.jsonl`."""
    lines = (data_dir() / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines)


@dataclass(frozen=True)
class Generated:
    """Token ids [n, length] of continuations (greedy ones first, then sampled), with the prompts' ids and mask, padded
    on the left.
    """

    prompts: torch.Tensor
    mask: torch.Tensor
    new: torch.Tensor


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, protocol: CoherenceProtocol) -> Generated:
    """Continue every prompt greedily and sampled. The end of text is not allowed, so that all have the same length.

    Raises UserError if a prompt has no tokens, CheckFailed if sampling meets NaN.
    """
    import torch

    encoded = [tokenizer(prompt)["input_ids"] for prompt in protocol.prompts]
    if not all(encoded):
        raise UserError(f"prompt {encoded.index([])} has no tokens for this tokenizer")
    longest = max(map(len, encoded))
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if t is not None), 0)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in encoded], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in encoded], device=model.device)
    length = {"max_new_tokens": protocol.new_tokens, "min_new_tokens": protocol.new_tokens, "pad_token_id": pad}
    sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(protocol.seed)
        greedy = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, **length)
        try:
            sampled = model.generate(input_ids=ids, attention_mask=mask, **sampling, **length)
        except RuntimeError as error:
            raise CheckFailed(
                f"coherence: sampling failed, the model's probabilities are not finite ({error})"
            ) from None
    new = torch.cat([greedy, sampled])[:, longest:]
    return Generated(torch.cat([ids, ids]), torch.cat([mask, mask]), new)


def teacher_nll(dense: PreTrainedModel, generated: Generated) -> list[float]:
    """Per continuation the mean nats per token that `dense` gives it after its prompt."""
    import torch

    ids = torch.cat([generated.prompts, generated.new], dim=1).to(dense.device)
    mask = torch.cat([generated.mask, torch.ones_like(generated.new)], dim=1).to(dense.device)
    values: list[float] = []
    head = head_of(dense)
    with torch.inference_mode():
        for rows, row_mask in zip(ids.split(8), mask.split(8), strict=True):
            losses = token_nlls(dense, head, rows, generated.new.shape[1], row_mask)
            values += losses.mean(dim=1).tolist()
    return values


def describe(
    generated: Generated, nlls: Sequence[float], tokenizer: PreTrainedTokenizerBase, protocol: CoherenceProtocol
) -> tuple[Continuation, ...]:
    """Every continuation with its parts, not yet scored; garble counts no foreign scripts yet."""
    prompts = protocol.prompts
    continuations = []
    for index, (row, nll) in enumerate(zip(generated.new.tolist(), nlls, strict=True)):
        text = tokenizer.decode(row, skip_special_tokens=True)
        kind = "greedy" if index < len(prompts) else "sampled"
        continuations.append(Continuation(prompts[index % len(prompts)], text, kind, rep4(row), garble(text), nll))
    return tuple(continuations)


def score_against(
    continuations: tuple[Continuation, ...], dense: tuple[Continuation, ...], generated: Generated
) -> Coherence:
    """Score continuations against those of dense (pass dense's own to score dense). Raises CheckFailed if a likelihood
    is not finite.
    """
    scripts = {script for c in dense for script in scripts_of(c.prompt + c.text)}
    scored = []
    for c in continuations:
        if not math.isfinite(c.teacher_nll):
            raise CheckFailed(f"coherence: the dense model's likelihood of a continuation is {c.teacher_nll}")
        peers = [d for d in dense if d.kind == c.kind]
        reference_nll = sum(d.teacher_nll for d in peers) / len(peers)
        reference_rep4 = sum(d.rep4 for d in peers) / len(peers)
        garbled = garble(c.text, scripts)
        fluency = math.exp(-max(0.0, c.teacher_nll - reference_nll) / NLL_SCALE)
        variety = min(1.0, (1 - c.rep4) / max(1 - reference_rep4, 1e-9))
        scored.append(Continuation(**{**asdict(c), "garble": garbled, "score": fluency * variety * (1 - garbled)}))
    scored.sort(key=lambda c: c.score)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Coherence(
        value=mean([c.score for c in scored]),
        rep4=mean([c.rep4 for c in scored]),
        distinct2=distinct2(generated.new.tolist()),
        garble=mean([c.garble for c in scored]),
        teacher_nll=mean([c.teacher_nll for c in scored]),
        continuations=tuple(scored),
    )


def rep4(tokens: Sequence[int]) -> float:
    """The share of 4-grams that repeat an earlier one; 0 for fewer than four tokens."""
    grams = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct2(rows: Sequence[Sequence[int]]) -> float:
    """Distinct bigrams over all bigrams, pooled over rows (Li et al. 2016)."""
    grams = [pair for row in rows for pair in pairwise(row)]
    return len(set(grams)) / len(grams) if grams else 0.0


def garble(text: str, scripts: set[str] | None = None) -> float:
    """The share of characters that are no text: controls (but line ends and tabs), replacement, private and unassigned
    characters, and letters of scripts outside `scripts` where that is given. An empty text is no text at all: 1."""
    if not text:
        return 1.0
    bad = 0
    for character in text:
        category = unicodedata.category(character)
        if (
            character == "\ufffd"
            or category in ("Cn", "Co", "Cs")
            or (category == "Cc" and character not in "\n\t\r")
            or (scripts is not None and category.startswith("L") and _script(character) not in scripts)
        ):
            bad += 1
    return bad / len(text)


def scripts_of(text: str) -> set[str]:
    """The scripts of a text's letters, by the first word of their Unicode names: LATIN, CJK, CYRILLIC, ..."""
    return {_script(character) for character in text if unicodedata.category(character).startswith("L")}


def _script(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split()[0]
