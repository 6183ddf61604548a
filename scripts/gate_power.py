"""Does the perplexity gate tell a loss of 3% from one of 0.2% at a threshold of 1%?

    python scripts/gate_power.py --model smollm2 --perturbations 20 --windows 60

Every perturbation adds noise to one weight matrix, scaled until the perplexity on the whole text has risen by 3% and by
0.2%, each within 0.1 point. The gate then sees the first windows of the text only. Prints every verdict and the two
counts; exits 1 if one of 3% doesn't fail, or of 0.2% more than 1 in 20 don't pass.

With `--last-layers N` only the last N decoder layers are perturbed, and what lies before them is computed once: what
30 layers take hours for takes minutes.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys

import torch

from pytest_llmprune.models.layout import decoder_layers
from pytest_llmprune.models.load import load
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.quality.gate import Gate, judge
from pytest_llmprune.quality.perplexity import (
    Perplexity,
    PerplexityProtocol,
    measure,
    prefix_of,
    ratio,
    tokenise,
    windows_of,
)
from pytest_llmprune.quality.texts import evaluation_text

GATE = Gate("ppl_ratio", "<=", 1.01)
TARGETS = {0.03: "fail", 0.002: "pass"}
TOLERANCE = 0.001


class Remembered(torch.nn.Module):
    """In place of the embeddings: the hidden state before decoder layer `first`, computed once for every window."""

    def __init__(self, decoder, first):
        super().__init__()
        self.whole, self.first, self.known = copy.deepcopy(decoder), first, {}

    def forward(self, ids):
        key = ids.cpu().numpy().tobytes()
        if key not in self.known:
            output = self.whole(input_ids=ids, use_cache=False, output_hidden_states=True)
            self.known[key] = output.hidden_states[self.first]
        return self.known[key]


def remember_all_but(model, layers):
    """Let the model consist of its last `layers` decoder layers, on top of what the others computed once."""
    decoder = model.base_model
    first = len(decoder.layers) - layers
    decoder.embed_tokens = Remembered(decoder, first)
    decoder.layers = decoder.layers[first:]
    model.config.num_hidden_layers = layers


def rise(measured, dense):
    return sum(measured.nll) / sum(measured.scored) - sum(dense.nll) / sum(dense.scored)


def perturbed(model, weight, noise, target, dense, windows, scale):
    """(scale, Perplexity) of the model with scale x noise on a weight, so that perplexity rises by `target`.

    The loss grows about with the square of random noise, so a few steps are enough; where it doesn't, bisection.
    """
    original, low, high = weight.detach().clone(), 0.0, math.inf
    for _ in range(20):
        with torch.no_grad():
            weight.copy_(original + scale * noise)
        found = measure(model, windows)
        with torch.no_grad():
            weight.copy_(original)
        risen = math.expm1(rise(found, dense))
        if abs(risen - target) < TOLERANCE:
            return scale, found
        low, high = (scale, high) if risen < target else (low, scale)
        scale *= math.sqrt(target / risen) if risen > 0 else 2.0
        if not low < scale < high:
            scale = 2 * low if high == math.inf else (low + high) / 2
    raise SystemExit(f"no scale gives a rise of {target:.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--text", default="builtin")
    parser.add_argument("--perturbations", type=int, default=20)
    parser.add_argument("--windows", type=int, default=60, help="windows of 512 tokens that the gate sees")
    parser.add_argument("--last-layers", type=int, default=0)
    options = parser.parse_args()

    loaded = load(ModelSpec(options.model, dtype=options.dtype))
    model, protocol = loaded.model, PerplexityProtocol(window=512, stride=512, windows=10**9)
    if options.last_layers:
        remember_all_but(model, options.last_layers)
    tokens = tokenise(loaded.tokenizer, evaluation_text(options.text))
    windows = windows_of(tokens, protocol, prefix_of(loaded.tokenizer, protocol))
    dense, seen = measure(model, windows), slice(options.windows)
    print(f"{options.model}: {len(windows)} windows, perplexity {dense.value:.3f}; the gate sees {options.windows}")
    layers, right = decoder_layers(model), dict.fromkeys(TARGETS, 0)
    for number in range(options.perturbations):
        generator = torch.Generator().manual_seed(number)
        layer = layers[torch.randint(len(layers), (), generator=generator).item()]
        part = ("o", "down")[number % 2]
        weight = getattr(layer, part).weight
        noise = torch.randn(weight.shape, generator=generator).to(weight) * weight.std()
        scale = 0.3
        for target, wanted in TARGETS.items():
            scale, found = perturbed(model, weight, noise, target, dense, windows, scale)
            pair = (Perplexity(p.nll[seen], p.scored[seen]) for p in (found, dense))
            measured = ratio(*pair, seed=number)
            interval = {"ppl_ratio": (measured.low, measured.high)}
            (verdict,) = judge([GATE], {"ppl_ratio": measured.value}, interval)
            right[target] += verdict.outcome == wanted
            true = math.expm1(rise(found, dense))
            print(
                f"{number:2d} {layer.name}.{part}: {true:+.2%} on the whole text, seen {measured.value - 1:+.2%}"
                f" [{measured.low - 1:+.2%}, {measured.high - 1:+.2%}]: {verdict.outcome}",
                flush=True,
            )
            scale *= math.sqrt(min(TARGETS) / max(TARGETS))
    for target, wanted in TARGETS.items():
        print(f"{target:+.1%}: {right[target]} of {options.perturbations} {wanted}")
    enough = right[0.03] == options.perturbations and right[0.002] >= 0.95 * options.perturbations
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
