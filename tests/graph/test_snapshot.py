"""A snapshot is the same for the same model, however torch-pruning numbered and ordered things."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.errors import UserError
from pytest_llmprune.graph.snapshot import dumps, fingerprint, groups_of, loads, snapshot_of
from pytest_llmprune.graph.trace import trace


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


def _groups(model):
    return groups_of(trace(model), every_root=True)


def test_equal_models_have_equal_fingerprints_and_others_do_not(llama):
    assert fingerprint(_groups(llama(4, 2))) == fingerprint(_groups(llama(4, 2, "sdpa", seed=1)))
    assert fingerprint(_groups(llama(4, 2))) != fingerprint(_groups(llama(4, 4)))


def test_renumbered_operations_and_another_order_of_layers_change_no_byte(llama, monkeypatch):
    import torch_pruning as tp

    model = llama(4, 2)
    graph = trace(model)
    expected = dumps(snapshot_of(graph, "small", groups_of(graph)))

    init = tp.DependencyGraph.__init__
    monkeypatch.setattr(tp.DependencyGraph, "__init__", lambda self: (init(self), setattr(self, "_op_id", 5000))[0])
    renumbered = trace(model)
    assert renumbered._op_id > 5000
    renumbered.module2node = dict(reversed(renumbered.module2node.items()))
    assert dumps(snapshot_of(renumbered, "small", groups_of(renumbered))) == expected


def test_processes_with_other_hash_seeds_write_the_same_bytes(tmp_path):
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "pytest_llmprune.cli", "graph", "tiny", "-o", f"{seed}.json"]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_a_snapshot_comes_back_from_its_text(snapshot):
    assert loads(dumps(snapshot), "x.json") == snapshot


def test_a_snapshot_says_which_kv_head_every_query_head_reads(snapshot):
    assert snapshot.model.head_map == "0 0 1 1"


def _with(**values):
    return lambda text: json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:700], "x.json: no snapshot of a graph: "),
        (lambda text: "[]", "x.json: not a snapshot of a graph; write one with: llmprune graph MODEL -o FILE.json"),
        (lambda text: '{"schema": 1, "planned": []}', "x.json: a run's record, not a snapshot of a graph; write one"),
        (_with(schema=9), "x.json: a snapshot of schema 9; this version reads schema 1"),
        (_with(groups=[["a.out"]]), "x.json: the snapshot is damaged: ValueError"),
        (_with(groups=[3]), "x.json: the snapshot is damaged: TypeError"),
        (_with(model={"layers": 1}), "x.json: the snapshot is damaged: TypeError"),
        (_with(environment=None), "x.json: the snapshot is damaged: TypeError"),
    ],
)
def test_what_is_no_snapshot_is_refused_in_one_line(snapshot, change, says):
    with pytest.raises(UserError) as caught:
        loads(change(dumps(snapshot)), "x.json")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_model_without_linear_layers_is_refused():
    import torch

    class Convolution(torch.nn.Module):
        device = torch.device("cpu")
        config = None

        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv1d(1, 1, 1)

        def forward(self, input_ids, attention_mask):
            return self.convolution(input_ids.float())

    with pytest.raises(UserError, match="Convolution has no Linear layer in its graph, so it has no groups"):
        groups_of(trace(Convolution()))
