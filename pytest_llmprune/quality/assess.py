"""Measure a pruned model beside its dense original: everything a gate can ask for, in one pass over each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.load import LoadedModel
from . import cost, perplexity
from .coherence import (
    TEMPERATURE,
    TOP_P,
    Coherence,
    Continuation,
    describe,
    generate,
    score_against,
    teacher_nll,
)
from .dense_cache import found_or_measured, key_for, short_hash, weights_hash
from .likelihood import Window
from .profiles import Profile
from .texts import text_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Dense:
    """What was measured of the dense model, once, and what pruned models are held against. sources: of each of its
    measurements, whether it was measured in this run or found in the cache.
    """

    loaded: LoadedModel
    profile: Profile
    protocol: dict[str, Any]
    windows: list[Window]
    perplexity: perplexity.Perplexity
    coherence: Coherence
    size: cost.Size
    sources: dict[str, str]


@dataclass(frozen=True)
class Assessment:
    """The measurements of one pruned model: by name, with intervals where there are any, the worst continuation, and
    the details for a sidecar.
    """

    measurements: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    protocol: dict[str, Any]
    worst: Continuation
    details: dict[str, Any] = field(repr=False)


def measure_dense(
    loaded: LoadedModel,
    text: str,
    profile: Profile,
    progress: Progress = lambda _: None,
    cache: Path | None = None,
) -> Dense:
    """Measure a dense model on `text`, or find in the folder `cache` what was measured before.

    Raises UserError for a text that is too short, CheckFailed for a model whose logits are not finite.
    """
    tokenizer = loaded.tokenizer
    assert tokenizer is not None, "a model that is judged has a tokenizer"
    prefix = perplexity.prefix_of(tokenizer, profile.perplexity)
    tokens = perplexity.tokenise(tokenizer, text, special=profile.perplexity.rolling)
    windows = perplexity.windows_of(tokens, profile.perplexity, prefix)
    hashes = {
        "weights": weights_hash(loaded.model) if cache else "",
        "tokenizer": short_hash([tokenizer.get_vocab(), tokens]),
        "text": text_hash(text),
    }

    def measure_perplexity() -> perplexity.Perplexity:
        progress(f"perplexity of dense on {len(windows)} windows of {profile.perplexity.window} tokens")
        return perplexity.measure(loaded.model, windows)

    def measure_coherence() -> Coherence:
        progress("continuations of dense")
        generated = generate(loaded.model, tokenizer, profile.coherence)
        nlls = teacher_nll(loaded.model, generated)
        continuations = describe(generated, nlls, tokenizer, profile.coherence)
        return score_against(continuations, continuations, generated)

    key = key_for(loaded, "ppl", asdict(profile.perplexity), **hashes)
    ppl, ppl_source = found_or_measured(cache, key, measure_perplexity, perplexity.Perplexity.from_json)
    generation = {
        **loaded.model.generation_config.to_diff_dict(),
        **asdict(profile.coherence),
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
    }
    key = key_for(loaded, "coherence", generation, **hashes)
    coherence, coherence_source = found_or_measured(cache, key, measure_coherence, Coherence.from_json)
    protocol = {
        **profile.to_json(),
        "text": text_hash(text),
        "tokenizer": short_hash(tokenizer.get_vocab()),
        "windows": len(windows),
        "bos": prefix is not None,
        "averaging": "per scored token",
        "confidence": perplexity.CONFIDENCE,
        "looks": 1,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": loaded.device.type,
        "attention": getattr(loaded.model.config, "_attn_implementation", "") or "",
    }
    return Dense(
        loaded=loaded,
        profile=profile,
        protocol=protocol,
        windows=windows,
        perplexity=ppl,
        coherence=coherence,
        size=cost.size_of(loaded.model),
        sources={"dense.ppl": ppl_source, "dense.coherence": coherence_source},
    )


def assess(model: PreTrainedModel, dense: Dense, progress: Progress = lambda _: None) -> Assessment:
    """Measure a pruned model as its dense original was measured. Raises CheckFailed if its logits are not finite."""
    tokenizer, profile = dense.loaded.tokenizer, dense.profile
    assert tokenizer is not None
    progress("perplexity of pruned")
    ppl = perplexity.measure(model, dense.windows)
    ratio = perplexity.ratio(ppl, dense.perplexity, seed=profile.coherence.seed)
    progress("continuations of pruned, judged by dense")
    generated = generate(model, tokenizer, profile.coherence)
    nlls = teacher_nll(dense.loaded.model, generated)
    continuations = describe(generated, nlls, tokenizer, profile.coherence)
    quality = score_against(continuations, dense.coherence.continuations, generated)
    progress("speed of dense and pruned in turn")
    speed = cost.speeds({"dense": dense.loaded.model, "pruned": model}, profile.speed)
    size = cost.size_of(model)
    before, after = speed["dense"], speed["pruned"]
    measurements: dict[str, float] = {
        "ppl": ppl.value,
        "ppl_ratio": ratio.value,
        "coherence": quality.value,
        "coherence_ratio": quality.value / dense.coherence.value,
        "rep4": quality.rep4,
        "distinct2": quality.distinct2,
        "garble": quality.garble,
        "teacher_nll": quality.teacher_nll,
        "params": size.params,
        "params_ratio": size.params / dense.size.params,
        "macs": size.macs,
        "macs_ratio": size.macs / dense.size.macs,
        "bytes": size.bytes,
        "prefill": after.prefill,
        "prefill_ratio": after.prefill / before.prefill,
        "decode": after.decode,
        "decode_ratio": after.decode / before.decode,
        "dense.ppl": dense.perplexity.value,
        "dense.coherence": dense.coherence.value,
        "dense.rep4": dense.coherence.rep4,
        "dense.teacher_nll": dense.coherence.teacher_nll,
        "dense.params": dense.size.params,
        "dense.macs": dense.size.macs,
        "dense.bytes": dense.size.bytes,
        "dense.prefill": before.prefill,
        "dense.decode": before.decode,
    }
    details = {
        "nll": {"dense": dense.perplexity.nll, "pruned": ppl.nll, "scored": ppl.scored},
        "continuations": [c.to_json() for c in quality.continuations],
        "dense_continuations": [c.to_json() for c in dense.coherence.continuations],
    }
    return Assessment(measurements, {"ppl_ratio": (ratio.low, ratio.high)}, dense.protocol, quality.worst, details)
