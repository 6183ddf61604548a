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
        """What has to be equal for two runs to be comparable: everything but the seed of sampling, which may vary. The
        calibration text is named by its hash.
        """
        from .texts import text_hash

        calibration = {**asdict(self.calibration), "text": text_hash(self.calibration.text)}
        coherence = asdict(self.coherence)
        del coherence["seed"]
        return {
            "perplexity": asdict(self.perplexity),
            "coherence": coherence,
            "speed": asdict(self.speed),
            "calibration": calibration,
        }


def profile(name: str, *, tiny: bool, seed: int = 0, calibration_seed: int = 0, rolling: bool = False) -> Profile:
    """The profile of that name: `smoke`, `standard` or `deep`. seed: of sampled continuations and of the bootstrap.
    calibration_seed: of the choice of calibration windows. rolling: perplexity over the whole text as lm-eval defines
    it.

    The tiny model, which knows nothing else, continues Shakespeare.
    """
    prompts = shipped_prompts("shakespeare" if tiny else "english")
    calibration = Calibration(builtin(CALIBRATION), windows=8, length=256, seed=calibration_seed)
    if name == "smoke":
        return Profile(
            PerplexityProtocol(window=256, stride=256, windows=16, rolling=rolling),
            CoherenceProtocol(prompts[:6], new_tokens=32, seed=seed),
            SpeedProtocol(prompt=128, new_tokens=4, rounds=2),
            calibration,
        )
    return Profile(
        PerplexityProtocol(window=512, stride=512, windows=60 if name == "deep" else 12, rolling=rolling),
        CoherenceProtocol(prompts, new_tokens=40, seed=seed),
        SpeedProtocol(),
        calibration,
    )
