"""A failure as a program of torch, transformers and torch-pruning alone, ready to be pasted into a bug report.

It ends with an error where the failure shows, and without one where it doesn't; where torch-pruning never returns it
ends after a minute.
"""

from __future__ import annotations

from pprint import pformat
from typing import Any

from ..fixes.standalone import program
from ..graph.expected import expected_groups
from .configs import TOKENS as CONFIG_TOKENS
from .modules import Network, Order
from .oracles import Cut
from .outputs import Nest
from .writer import Channel

NEST = """\
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range({count}))

    def forward(self, x):
        tensors = []
        for layer in self.layers:
            x = layer(x)
            tensors.insert(0, x)
        return {source}


model = Model()
graph = tp.DependencyGraph().build_dependency(model, torch.ones(2, 2))
found = graph.get_pruning_group(model.layers[0], tp.prune_linear_out_channels, [0])
layers = {{dep.target.module for dep, _ in found}} & set(model.layers)
assert layers == set(model.layers[:2]), found
"""

NETWORK = """\
faulthandler.dump_traceback_later(60, exit=True)  # propagation may never end
torch.manual_seed(0)
model = Model().eval()
x = {inputs}
graph = traced(model, x)
"""

TAKES = """\
found = set(channels_of(graph, group_of(graph, {start})))
expected = {expected}
assert found == expected, f"lacks {{expected - found}}, has {{found - expected}} too"
"""

MASKED = """\
masked = copy.deepcopy(model)
group = group_of(graph, {cut})
mask(masked, channels_of(graph, group))
group.prune()
error = (model(x) - masked(x)).abs().max()
assert error < 1e-4, f"pruned and masked outputs differ by {{error}}"
"""

AGAIN = """\
group_of(graph, {cut}).prune()
assert groups(graph) == groups(traced(copy.deepcopy(model), x))
"""

REPLAYED = """\
fresh = copy.deepcopy(model)
group_of(graph, {cut}).prune()
traced(fresh, x).load_pruning_history(copy.deepcopy(graph.pruning_history()))
for name, weight in model.named_parameters():
    assert torch.equal(weight, fresh.get_parameter(name)), name
"""

CHANGED = """\
before = groups(graph)
after = groups({change})
assert before == after
"""

REORDERED = """\
before = model(x)
reorder(graph, group_of(graph, {layer!r}, {side!r}, list(range({width}))), {block})
error = (model(x) - before).abs().max()
assert error < 1e-4, f"outputs with channels in another order differ by {{error}}"
"""

CONFIG = """\
faulthandler.dump_traceback_later(60, exit=True)  # propagation may never end
torch.manual_seed(0)
config = AutoConfig.for_model(**{values})
model = AutoModelForCausalLM.from_config(config, attn_implementation={attention!r}).eval()
x = {{"input_ids": torch.arange({tokens})[None], "use_cache": {use_cache}}}
graph = traced(model, x)
"""

IMPLIED = """\
implied = {implied}
for members in implied:  # each with its number of channels
    root = next(name for name in members if "_proj" in name)
    layer, _, side = root.rpartition(".")
    group = group_of(graph, layer, side, list(range(members[root])))
    found = collections.Counter(f"{{layer}}.{{side}}" for layer, side, _ in set(channels_of(graph, group)))
    assert found == members, f"from {{root}}: {{dict(found)}}, implied are {{members}}"
"""


def nest(nest: Nest) -> str:
    """Traces layers in a row whose outputs are returned like this, the last one first."""
    from . import parts

    return program(NEST.format(count=nest.count, source=nest.source), parts)


def built(network: Network) -> str:
    """Traces a network."""
    return _of(network, "")


def takes(network: Network, start: Channel) -> str:
    """Asks what pruning a channel takes along."""
    layer, side, index = start
    expected = pformat(set(network.takes[start]), width=110)
    return _of(network, TAKES.format(start=f"{layer!r}, {side!r}, [{index}]", expected=expected))


def masked(network: Network, cut: Cut) -> str:
    """Compares a pruned network with a masked one."""
    return _of(network, MASKED.format(cut=_arguments(cut)))


def again(network: Network, cut: Cut) -> str:
    """Compares the graph of a network that was pruned with one built afresh."""
    return _of(network, AGAIN.format(cut=_arguments(cut)))


def replayed(network: Network, cut: Cut) -> str:
    """Replays a pruning on a copy."""
    return _of(network, REPLAYED.format(cut=_arguments(cut)))


def changed(network: Network, change: str) -> str:
    """Compares the groups before and after a change, which is code of another graph."""
    return _of(network, CHANGED.format(change=change))


def reordered(network: Network, order: Order) -> str:
    """Puts channels in another order."""
    side = "out" if order.out else "in"
    width = sum(channel[:2] == (order.layer, side) for channel in network.takes)
    return _of(network, REORDERED.format(layer=order.layer, side=side, width=width, block=order.block))


def implied(config: Any, attention: str, use_cache: bool) -> str:
    """Compares the groups of a model with those that its config implies."""
    groups = [{f"{m.name}.{m.side}": m.channels for m in group.members} for group in expected_groups(config)]
    check = IMPLIED.format(implied=pformat(groups, width=110))
    return _of_config(config, attention, use_cache, check)


def masked_config(config: Any, attention: str, cut: Cut) -> str:
    """Compares a pruned model of a config with a masked one."""
    check = MASKED.format(cut=_arguments(cut)).replace("(x)", "(**x).logits")
    return _of_config(config, attention, False, check)


def _of_config(config: Any, attention: str, use_cache: bool, check: str) -> str:
    from . import parts

    values = pformat(config.to_diff_dict(), width=110)
    setup = CONFIG.format(values=values, attention=attention, tokens=CONFIG_TOKENS, use_cache=use_cache)
    return program(setup + check, parts)


def _of(network: Network, check: str) -> str:
    from . import parts

    return program(f"{network.source}\n\n{NETWORK.format(inputs=network.inputs_code())}{check}", parts)


def _arguments(cut: Cut) -> str:
    return f"{cut.layer!r}, {cut.side!r}, {list(cut.indices)}"
