"""What a user who prunes LLMs runs of torch-pruning: its lines are those that faults are drawn from.

    python -m coverage run --source torch_pruning -m tests.power.drive on|off

`on` and `off`: with this plugin's fixes or without. Without them most models never return or fail; the lines of
functions that fixes replace count as executed where one model gets through them.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import warnings
from pathlib import Path

PUBLISHED = ("Qwen/Qwen3-0.6B", "microsoft/Phi-3-mini-4k-instruct", "google/gemma-2-2b", "mistralai/Mistral-7B-v0.1")
IMPORTANCES = ("taylor", "magnitude", "random")


def example_flow():
    """The script `scripts/example_flow.py`, which is in no package."""
    file = Path(__file__).parents[2] / "scripts" / "example_flow.py"
    spec = importlib.util.spec_from_file_location("example_flow", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipes(model, importances=IMPORTANCES):
    """Every recipe with every importance; what a model does not admit is passed over."""
    import torch

    from pytest_llmprune.errors import CheckFailed, UserError
    from pytest_llmprune.prune.apply import prune
    from pytest_llmprune.prune.recipes import Case
    from pytest_llmprune.words import RECIPES

    windows = torch.randint(3, model.config.vocab_size, (2, 16))
    for importance in importances:
        for recipe in RECIPES:
            try:
                prune(copy.deepcopy(model), Case(recipe, 0.3, importance), calibration=windows)
            except (UserError, CheckFailed, AttributeError, TypeError, ValueError, RuntimeError) as error:
                print(type(model).__name__, importance, recipe, str(error).splitlines()[0])


def library(model):
    """The pruner in several steps, locally and globally; its history on a fresh copy; costs."""
    import torch
    import torch_pruning as tp

    ids = torch.arange(1, 13).reshape(1, 12)
    model.config.use_cache = False
    print(tp.utils.count_ops_and_params(model, ids))
    for global_pruning in (False, True):
        pruned, fresh = copy.deepcopy(model), copy.deepcopy(model)
        arguments = {
            "importance": tp.importance.GroupMagnitudeImportance(p=2),
            "global_pruning": global_pruning,
            "iterative_steps": 2,
            "output_transform": lambda output: output.logits,
        }
        pruner = tp.pruner.BasePruner(
            pruned, ids, pruning_ratio=0.3, ignored_layers=[pruned.lm_head, *attention(pruned)], **arguments
        )
        pruner.step()
        pruner.step()
        history = pruner.pruning_history()
        tp.pruner.BasePruner(fresh, ids, **arguments).load_pruning_history(history)


def attention(model):
    from pytest_llmprune.models.layout import decoder_layers

    return [linear for layer in decoder_layers(model) for linear in layer.attention_inputs]


def main(mode: str) -> None:
    warnings.simplefilter("ignore")
    from pytest_llmprune import fixes
    from pytest_llmprune.models.load import load, load_config
    from pytest_llmprune.models.miniature import miniature
    from pytest_llmprune.models.spec import ModelSpec

    flow = example_flow()
    with fixes.applied(None if mode == "on" else ()):
        if mode == "on":
            recipes(load(ModelSpec("tiny")).model)
            for name in PUBLISHED:
                recipes(miniature(load_config(ModelSpec(name)), attention="eager"))
        llama, _ = flow.build("llama 4/4", "eager")
        recipes(llama)
        library(llama)
        for family in flow.FAMILIES:
            for attention_kind in flow.ATTENTIONS:
                for output in flow.OUTPUTS:
                    print(family, attention_kind, output, flow.outcome(family, attention_kind, output))


if __name__ == "__main__":
    main(sys.argv[1])
