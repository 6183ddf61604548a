"""How the time of tracing and pruning grows with the number of layers, and what it is against torch-pruning as shipped.

    python scripts/linear_time.py                                   # Llama-2-7b shapes
    python scripts/linear_time.py --model meta-llama/Llama-3.1-405B --layers 8 16 32 64 126 --no-unpatched

Everything is on the meta device: no weights, and no time spent on anything but torch-pruning. Patched and unpatched
rounds alternate in one process, and medians are compared.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import warnings

import torch_pruning as tp

from pytest_llmprune import fixes
from pytest_llmprune.graph.trace import example_inputs
from pytest_llmprune.models.layout import decoder_layers, shape_of
from pytest_llmprune.models.load import build_on_meta, load_config
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.quality.cost import growth_exponent


def one_round(config, fixed: bool) -> dict[str, float]:
    """Seconds of torch-pruning's own flow on one model: pruner construction (trace and all groups), one step at 0.5."""
    model = build_on_meta(config)
    layers, shape = decoder_layers(model), shape_of(config)
    heads = {}
    for layer in layers:
        heads |= {layer.q: shape.heads, layer.k: shape.kv_heads, layer.v: shape.kv_heads}
    with fixes.applied(None if fixed else ()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
        started = time.perf_counter()
        pruner = tp.pruner.BasePruner(
            model,
            example_inputs=example_inputs(model),
            output_transform=lambda output: output.logits,
            importance=tp.importance.RandomImportance(),
            pruning_ratio=0.5,
            head_pruning_ratio=0.5,
            prune_num_heads=True,
            prune_head_dims=False,
            num_heads=heads,
            in_channel_groups={},
            out_channel_groups={},
            ignored_layers=[model.lm_head],
            root_module_types=[type(model.lm_head)],
        )
        constructed = time.perf_counter()
        pruner.step()
        stepped = time.perf_counter()
    return {"construction": constructed - started, "step": stepped - constructed, "both": stepped - started}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="meta-llama/Llama-2-7b-hf")
    parser.add_argument("--layers", nargs="+", type=int, default=[8, 16, 32, 80, 126])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-unpatched", action="store_true")
    options = parser.parse_args()

    config = load_config(ModelSpec(options.model, weights="meta"))
    config.use_cache = False
    kinds = {"fixed": True} if options.no_unpatched else {"fixed": True, "as shipped": False}
    table: dict[str, dict[int, dict[str, float]]] = {kind: {} for kind in kinds}
    for layers in options.layers:
        config.num_hidden_layers = layers
        rounds = [{kind: one_round(config, fixed) for kind, fixed in kinds.items()} for _ in range(options.rounds)]
        for kind in kinds:
            seconds = table[kind][layers] = medians([found[kind] for found in rounds])
            print(f"{layers:4} layers {kind:10}", "  ".join(f"{part} {s:6.2f} s" for part, s in seconds.items()))
        if not options.no_unpatched:
            ratio = table["as shipped"][layers]["both"] / table["fixed"][layers]["both"]
            print(f"{layers:4} layers as shipped / fixed: {ratio:.1f}")
    for kind, by_layers in table.items():
        for part in ("construction", "step", "both"):
            exponent = growth_exponent({layers: seconds[part] for layers, seconds in by_layers.items()})
            print(f"growth exponent over layers, {kind}, {part}: {exponent:.2f}")


if __name__ == "__main__":
    main()
