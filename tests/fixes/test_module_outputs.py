"""A layer is in the graph whatever it returns, and joins the channels that it joins when it returns one tensor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pytest_llmprune import fixes


@pytest.fixture(autouse=True)
def _unpatched():
    fixes.undo()
    yield
    fixes.undo()


def _group(model, x, root, **arguments):
    """The group of the root's first out channel, and its layers as names and sides."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, x, verbose=False, ignored_params=[], **arguments)
    names = {module: name for name, module in model.named_modules()}
    group = graph.get_pruning_group(root, tp.prune_linear_out_channels, [0])
    return group, {
        f"{names[dep.target.module]}.{'out' if graph.is_out_channel_pruning_fn(dep.handler) else 'in'}"
        for dep, _ in group
        if dep.target.module in names
    }


FORMS = {
    "tuple": (lambda y, x: (y, None), lambda out: out[0]),
    "None first": (lambda y, x: (None, y), lambda out: out[1]),
    "dict": (lambda y, x: {"y": y}, lambda out: out["y"]),
    "integers first": (lambda y, x: (y.argmax(-1), y), lambda out: out[1]),
    "detached first": (lambda y, x: (y.detach(), y), lambda out: out[1]),
    "computed from it": (lambda y, x: {"sum": y.sum(), "y": y}, lambda out: out["y"]),
    "what it was given": (lambda y, x: (x, y), lambda out: out[1]),
}


class _Layer(nn.Linear):
    def __init__(self, form, *sizes):
        super().__init__(*sizes)
        self.form = form

    def forward(self, x):
        return self.form(super().forward(x), x)


class _Custom(nn.Module):
    def __init__(self, form, *sizes):
        super().__init__()
        self.inner, self.form = nn.Linear(*sizes), form

    def forward(self, x):
        return self.form(self.inner(x), x)


class _Stack(nn.Module):
    def __init__(self, layer, pick):
        super().__init__()
        self.first, self.layer, self.last, self.pick = nn.Linear(4, 6), layer, nn.Linear(8, 3), pick

    def forward(self, x):
        return self.last(self.pick(self.layer(torch.relu(self.first(x)))))


@pytest.mark.parametrize("shape", [(2, 4), (1, 2, 4)])
@pytest.mark.parametrize(("form", "pick"), FORMS.values(), ids=FORMS.keys())
def test_a_linear_layer_may_return_anything(form, pick, shape):
    x = torch.ones(shape)
    model = _Stack(_Layer(form, 6, 8), pick)
    with pytest.raises(AttributeError):
        _group(model, x, model.first)
    model = _Stack(_Layer(form, 6, 8), pick)  # torch-pruning leaves its hooks in the other
    with fixes.applied(["module-outputs"]):
        assert _group(model, x, model.first)[1] == {"first.out", "layer.in"}
        assert _group(model, x, model.layer)[1] == {"layer.out", "last.in"}


def test_a_customised_layer_may_return_a_dictionary():
    import torch_pruning as tp

    class Pruner(tp.pruner.function.LinearPruner):
        def get_out_channels(self, layer):
            return layer.inner.out_features

        def get_in_channels(self, layer):
            return layer.inner.in_features

    def build():
        return _Stack(_Custom(lambda y, x: {"y": y, "x": x}, 6, 8), lambda out: out["y"])

    pruners = {_Custom: Pruner()}
    model = build()
    with pytest.raises(AttributeError):
        _group(model, torch.ones(1, 4), model.first, customized_pruners=pruners)
    model = build()
    with fixes.applied(["module-outputs"]):
        found = _group(model, torch.ones(1, 4), model.first, customized_pruners=pruners)[1]
    assert found == {"first.out", "layer.in"}


def test_a_layer_that_is_used_twice_still_joins_its_own_ends():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = _Layer(lambda y, x: (y, y + 1), 4, 4)

        def forward(self, x):
            return self.layer(self.layer(x)[0])[1]

    model = Twice()
    with fixes.applied(["module-outputs"]):
        assert _group(model, torch.ones(1, 4), model.layer)[1] == {"layer.out", "layer.in"}


class _Recurrent(nn.Module):
    def __init__(self, use, packed, batch_first, layers):
        super().__init__()
        self.embed = nn.Linear(4, 5)
        self.lstm = nn.LSTM(5, 6, num_layers=layers, batch_first=batch_first)
        self.head = nn.Linear(6, 3)
        self.use, self.packed = use, packed

    def forward(self, x):
        x = self.embed(x)
        if self.packed:
            x = pack_padded_sequence(x, [3] * x.shape[0], batch_first=self.lstm.batch_first)
        outputs, (state, _) = self.lstm(x)
        if self.packed:
            outputs, _ = pad_packed_sequence(outputs, batch_first=self.lstm.batch_first)
        return self.head({"outputs": outputs, "state": state[-1], "both": outputs.sum() + state[-1]}[self.use])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("use", ["outputs", "state", "both"])
def test_an_lstm_is_in_the_graph_and_loses_the_inputs_that_are_masked(use, packed, batch_first, layers):
    torch.manual_seed(0)
    model, x = _Recurrent(use, packed, batch_first, layers), torch.randn(3, 3, 4)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.lstm.weight_ih_l0[:, 0] = 0
    with fixes.applied(["module-outputs"]):
        group, members = _group(model, x, model.embed)
        assert members == {"embed.out", "lstm.in"}
        group.prune()
    assert torch.allclose(model(x), masked(x), atol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_without_the_fix_an_lstm_is_lost_whose_last_state_is_used(packed):
    model = _Recurrent("state", packed=packed, batch_first=True, layers=1)
    assert _group(model, torch.randn(3, 3, 4), model.embed)[1] == {"embed.out", "head.in"}


@pytest.mark.parametrize("weights", [True, False])
def test_attention_that_returns_its_weights_joins_what_it_joins_without(weights):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.attention = nn.Linear(4, 8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.last = nn.Linear(8, 3)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.attention(query=x, key=x, value=x, need_weights=weights)[0])

    model = Attention()
    with fixes.applied(["module-outputs"]):
        found = _group(model, torch.randn(2, 3, 4), model.first)[1]
    assert found == {"first.out", "attention.out", "last.in"}
