"""Does torch-pruning's own interface do what it says, on the miniature: importances, steps, history, counts?"""

from __future__ import annotations

import copy
import math

import pytest
import torch

from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.graph.diff import differences
from pytest_llmprune.graph.expected import expected_groups
from pytest_llmprune.graph.snapshot import groups_of
from pytest_llmprune.graph.trace import example_inputs, trace
from pytest_llmprune.models.layout import decoder_layers, shape_of
from pytest_llmprune.models.load import load_config
from pytest_llmprune.models.miniature import miniature
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.config import synchronise
from pytest_llmprune.prune.mask import MASKABLE, mask
from pytest_llmprune.prune.plan import make_plan
from pytest_llmprune.prune.recipes import Case
from pytest_llmprune.torch_pruning_api import in_channels, make_importance, make_pruner, out_channels, quiet

RATIO = 0.5
TOLERANCE = 1e-4  # of the largest logit
# what tiny has none of: fused projections, norms by head, four norms and tied embeddings, a cache with a window, biases
FAMILIES = (
    "microsoft/Phi-3-mini-4k-instruct",
    "Qwen/Qwen3-0.6B",
    "google/gemma-2-2b",
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-0.5B",
)


@pytest.fixture(params=["own", *FAMILIES])
def mini(request, llm_config, llm_fixes):
    """The miniature of the model in question, and those of the families."""
    return miniature(llm_config if request.param == "own" else _config(request.param))


def _config(name):
    return load_config(ModelSpec(name, weights="meta"))


def _worth(layer, importance):
    """What every weight of a layer counts: |w|^2 or |w x gradient|."""
    return layer.weight.detach().square() if importance == "magnitude" else (layer.weight * layer.weight.grad).abs()


def _ffn_pruner(model, **arguments):
    layers = decoder_layers(model)
    kept = [layer.o for layer in layers] + [layer.down for layer in layers]
    return make_pruner(
        model,
        example_inputs=example_inputs(model),
        importance=make_importance("magnitude"),
        pruning_ratio=RATIO,
        ignored_layers=[model.get_output_embeddings(), *kept, *(p for x in layers for p in x.attention_inputs)],
        root_module_types=[type(model.get_output_embeddings())],
        num_heads={},
        in_channel_groups={},
        out_channel_groups={layer.gate_up: 2 for layer in layers if layer.gate_up is not None},
        **arguments,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_groups_it_implies_and_prunes_as_it_masks(llm_fixes, llm_record, family):
    config = _config(family)
    config.initializer_range = 0.2  # so large that every channel matters to the logits
    dense = miniature(config, attention="eager")
    ids = torch.randint(3, dense.config.vocab_size, (2, 8), generator=torch.Generator().manual_seed(0))
    with propagation_budget():
        assert differences(expected_groups(dense.config), groups_of(trace(dense), every_root=True)) == []
    for recipe in MASKABLE:
        if recipe == "kv-groups" and decoder_layers(dense)[0].k is None:
            continue
        pruned, masked = copy.deepcopy(dense), copy.deepcopy(dense)
        mask(masked, prune(pruned, Case(recipe, 0.3, "magnitude")).plan)
        wanted, found = (model(input_ids=ids, use_cache=False).logits for model in (masked, pruned))
        assert (wanted - found).abs().max() / wanted.abs().max() < TOLERANCE, recipe
    prune(dense, Case("all", 0.3, "magnitude"))
    assert dense(input_ids=ids, use_cache=False).logits.isfinite().all()


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_an_ffn_channel_is_worth_what_its_weights_are(mini, llm_record, importance):
    ids = example_inputs(mini)["input_ids"]
    mini(input_ids=ids, labels=ids).loss.backward()
    raw = make_importance(importance)
    with propagation_budget():
        graph = trace(mini)
        for layer in decoder_layers(mini):
            every = list(range(layer.down.in_features))
            found = make_importance(importance)(graph.get_pruning_group(layer.down, in_channels(), every))
            wanted = _worth(layer.down, importance).sum(0)
            for linear in layer.ffn_inputs:
                wanted = wanted + _worth(linear, importance).sum(1).unflatten(0, (-1, len(every))).sum(0)
            torch.testing.assert_close(found, wanted / wanted.mean(), rtol=1e-4, atol=1e-6)
            raw.normalizer = None
            found = raw(graph.get_pruning_group(layer.down, in_channels(), every))
            torch.testing.assert_close(found, wanted / (1 + len(layer.ffn_inputs)), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_a_query_channel_is_worth_what_its_weights_are(mini, llm_record, importance):
    """A kv channel that several query heads read has no query channel of its own, and counts for none."""
    if decoder_layers(mini)[0].q is None:
        pytest.skip("q, k and v are fused in one layer")
    ids = example_inputs(mini)["input_ids"]
    mini(input_ids=ids, labels=ids).loss.backward()
    with propagation_budget():
        graph = trace(mini)
        for layer in decoder_layers(mini):
            every = list(range(layer.o.in_features))
            found = make_importance(importance)(graph.get_pruning_group(layer.o, in_channels(), every))
            own = [layer.q] if shape_of(mini.config).queries_per_kv > 1 else [layer.q, layer.k, layer.v]
            wanted = sum((_worth(linear, importance).sum(1) for linear in own), _worth(layer.o, importance).sum(0))
            torch.testing.assert_close(found, wanted / wanted.mean(), rtol=1e-4, atol=1e-6)


def test_the_query_heads_that_weigh_least_go(mini, llm_record):
    shape, size = shape_of(mini.config), shape_of(mini.config).head_dim
    if shape.heads == 1:
        pytest.skip("the miniature has one head")
    step = max(shape.queries_per_kv, 2)
    weak = range(step - 1, shape.heads, step)  # the last of every kv group, or every second head
    with torch.no_grad():
        for layer in decoder_layers(mini):
            for head in weak:
                layer.o.weight[:, head * size : (head + 1) * size] *= 1e-3
                (layer.q if layer.qkv is None else layer.qkv).weight[head * size : (head + 1) * size] *= 1e-3
    with propagation_budget():
        plan, _ = make_plan(mini, Case("heads", len(weak) / shape.heads, "magnitude"))
    wanted = {head * size + channel for head in weak for channel in range(size)}
    assert plan.removals
    assert all(set(removal.indices) == wanted for removal in plan.removals)


def test_the_heads_that_weigh_least_in_all_layers_go_globally(llm_config, llm_fixes, llm_record):
    config = copy.deepcopy(llm_config)
    config.num_key_value_heads = config.num_attention_heads  # so that any head may go
    model = miniature(config)
    layers, shape = decoder_layers(model), shape_of(model.config)
    if shape.heads < 4 or layers[0].q is None:
        pytest.skip("the miniature has too few heads, or fused ones")
    weak = [list(range(shape.heads - 1)), [1]]  # of the first and of the second layer: half of all, at four heads
    linears = [linear for layer in layers for linear in layer.attention_inputs]
    with torch.no_grad():
        for layer, heads in zip(layers, weak, strict=True):
            for head in heads:
                layer.o.weight[:, head * shape.head_dim : (head + 1) * shape.head_dim] *= 1e-3
                for linear in layer.attention_inputs:
                    linear.weight[head * shape.head_dim : (head + 1) * shape.head_dim] *= 1e-3
    ratio = sum(map(len, weak)) / (2 * shape.heads)
    with propagation_budget():
        pruner = make_pruner(
            model,
            example_inputs=example_inputs(model),
            importance=make_importance("magnitude"),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=[model.get_output_embeddings(), *(p for x in layers for p in (x.o, *x.ffn_inputs, x.down))],
            root_module_types=[type(model.get_output_embeddings())],
            num_heads=dict.fromkeys(linears, shape.heads),
            in_channel_groups={},
            out_channel_groups={},
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=ratio,
        )
        pruner.step()
    left = [[shape.heads - len(heads)] * len(layer.attention_inputs) for layer, heads in zip(layers, weak, strict=True)]
    assert [[p.out_features // shape.head_dim for p in layer.attention_inputs] for layer in layers] == left
    assert [[pruner.num_heads[p] for p in layer.attention_inputs] for layer in layers] == left


def test_a_step_prunes_heads_and_leaves_shared_kv_heads_alone(mini, llm_record):
    layers, shape = decoder_layers(mini), shape_of(mini.config)
    if shape.heads == shape.kv_heads or layers[0].q is None:
        pytest.skip("every query head has its own kv head, or they are fused in one layer")
    removed = shape.kv_heads * math.ceil(math.ceil(RATIO * shape.heads) / shape.kv_heads)
    heads = {layer.q: shape.heads for layer in layers}
    heads |= {linear: shape.kv_heads for layer in layers for linear in (layer.k, layer.v)}
    with propagation_budget():
        make_pruner(
            mini,
            example_inputs=example_inputs(mini),
            importance=make_importance("magnitude"),
            pruning_ratio=RATIO,
            ignored_layers=[mini.get_output_embeddings(), *(p for x in layers for p in (x.o, *x.ffn_inputs, x.down))],
            root_module_types=[type(mini.get_output_embeddings())],
            num_heads=heads,
            in_channel_groups={},
            out_channel_groups={},
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=RATIO,
        ).step()
    synchronise(mini)
    left = shape_of(mini.config)
    assert (left.heads, left.kv_heads) == (shape.heads - removed, shape.kv_heads)
    mini(**example_inputs(mini))


@pytest.mark.parametrize("everywhere", [False, True], ids=["local", "global"])
def test_steps_add_up_to_the_ratio(mini, llm_record, everywhere):
    widths = [layer.down.in_features for layer in decoder_layers(mini)]
    with propagation_budget():
        pruner = _ffn_pruner(mini, global_pruning=everywhere, iterative_steps=2)
        pruner.step()
        half_way = [layer.down.in_features for layer in decoder_layers(mini)]
        pruner.step()
    left = [layer.down.in_features for layer in decoder_layers(mini)]
    if not everywhere:
        assert half_way == [width - int(width * RATIO / 2) for width in widths]
        assert left == [width - int(width * RATIO) for width in widths]
    assert sum(half_way) == sum(widths) - int(sum(widths) * RATIO / 2)
    assert sum(left) == sum(widths) - int(sum(widths) * RATIO)
    mini(**example_inputs(mini))


def test_a_layer_with_a_ratio_of_its_own_is_pruned_by_it(mini, llm_record):
    widths = [layer.down.in_features for layer in decoder_layers(mini)]
    with propagation_budget():
        _ffn_pruner(mini, pruning_ratio_dict={tuple(decoder_layers(mini)[0].ffn_inputs): 0.25}).step()
    left = [layer.down.in_features for layer in decoder_layers(mini)]
    assert left == [int(widths[0] * 0.75), int(widths[1] * (1 - RATIO))]


def test_a_history_replayed_on_a_fresh_copy_gives_the_same_weights(mini, llm_record):
    fresh = copy.deepcopy(mini)
    layer = decoder_layers(mini)[0]
    with propagation_budget():
        graph, again = trace(mini), trace(fresh)
        graph.get_pruning_group(layer.down, in_channels(), [0, 2, 5]).prune()
        graph.get_pruning_group(layer.down, out_channels(), [1, 3]).prune()
        graph.get_pruning_group(layer.down, in_channels(), [1, 2]).prune()
        history = copy.deepcopy(graph.pruning_history())
        again.load_pruning_history(history)
    assert len(history) == 3
    wanted, found = mini.state_dict(), fresh.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert graph.pruning_history() == again.pruning_history() == history


def test_two_prunings_are_the_one_of_both(mini, llm_record):
    once, size = copy.deepcopy(mini), shape_of(mini.config).head_dim
    first_head, two_heads = list(range(size)), list(range(2 * size))
    with propagation_budget():
        for model, ffn, heads in (
            (mini, ([0, 2, 5], [1, 2]), [first_head] * 2),
            (once, ([0, 2, 3, 4, 5],), [two_heads]),
        ):
            graph, layer = trace(model), decoder_layers(model)[0]
            for taken in ffn:
                graph.get_pruning_group(layer.down, in_channels(), taken).prune()
            if layer.k is not None and shape_of(mini.config).kv_heads > 2:
                for taken in heads:
                    graph.get_pruning_group(layer.k, out_channels(), taken).prune()
    wanted, found = once.state_dict(), mini.state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_an_ignored_parameter_is_in_no_group(mini, llm_record):
    import torch_pruning as tp

    ignored, *others = [p for name, p in mini.named_parameters() if name.endswith("layernorm.weight")]
    graph = tp.DependencyGraph()
    with quiet():
        graph.build_dependency(mini, example_inputs(mini), ignored_params=[ignored])
    with propagation_budget():
        group = graph.get_pruning_group(decoder_layers(mini)[0].down, out_channels(), [0])
    found = [dep.target.module for dep, _ in group]
    assert not any(module is ignored for module in found)
    assert all(any(module is other for module in found) for other in others)


def test_a_group_that_would_leave_nothing_is_refused(mini, llm_record):
    with propagation_budget():
        graph, down = trace(mini), decoder_layers(mini)[0].down
        every = list(range(down.in_features))
        assert graph.check_pruning_group(graph.get_pruning_group(down, in_channels(), every[:-1]))
        assert not graph.check_pruning_group(graph.get_pruning_group(down, in_channels(), every))


def test_operations_and_parameters_are_counted_and_the_model_is_left_as_it_was(mini, llm_record):
    import torch_pruning as tp

    inputs = example_inputs(mini)
    before = {name: set(vars(module)) for name, module in mini.named_modules()}
    macs, params, macs_of, params_of = tp.utils.count_ops_and_params(mini, inputs, layer_wise=True)
    assert {name: set(vars(module)) for name, module in mini.named_modules()} == before
    linears = [module for module in mini.modules() if isinstance(module, torch.nn.Linear)]
    tokens = inputs["input_ids"].numel()
    for linear in linears:
        weights, every = linear.weight.numel(), sum(parameter.numel() for parameter in linear.parameters())
        assert tokens * weights <= macs_of[linear] <= tokens * every  # torch-pruning adds biases once, not per token
        assert params_of[linear] == every
    assert macs == sum(macs_of[linear] for linear in linears)
    assert params == sum(parameter.numel() for parameter in mini.parameters())
