"""How much a profile measures: one place for every number that makes two runs comparable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..prune.importance import Calibration
from .coherence import CoherenceProtocol, shipped_prompts
from .cost import SpeedProtocol
from .perplexity import PerplexityProtocol
from .texts import CALIBRATION, builtin


@dataclass(frozen=True)
class Profile:
    """The protocols of one profile."""

    perplexity: PerplexityProtocol
    coherence: CoherenceProtocol
    speed: SpeedProtocol
    calibration: Calibration

    def to_json(self) -> dict[str, Any]:
        """Everything but the calibration text itself, which is named by its hash."""
        from .texts import text_hash

        calibration = {**asdict(self.calibration), "text": text_hash(self.calibration.text)}
        return {
            "perplexity": asdict(self.perplexity),
            "coherence": asdict(self.coherence),
            "speed": asdict(self.speed),
            "calibration": calibration,
        }


def profile(name: str, *, tiny: bool, seed: int = 0) -> Profile:
    """The profile of that name: `smoke`, `standard` or `deep`. `seed`: of sampled continuations.

    The tiny model, which knows nothing else, continues Shakespeare.
    """
    prompts = shipped_prompts("shakespeare" if tiny else "english")
    text = builtin(CALIBRATION)
    if name == "smoke":
        return Profile(
            PerplexityProtocol(window=256, stride=256, windows=16),
            CoherenceProtocol(prompts[:6], new_tokens=32, seed=seed),
            SpeedProtocol(prompt=128, new_tokens=4, rounds=2),
            Calibration(text, windows=8, length=256),
        )
    return Profile(
        PerplexityProtocol(window=512, stride=512, windows=48 if name == "deep" else 12),
        CoherenceProtocol(prompts, new_tokens=40, seed=seed),
        SpeedProtocol(),
        Calibration(text, windows=8, length=256),
    )
