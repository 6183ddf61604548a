"""What the plugin's own tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

# imported before pytester first notes which modules there are: it forgets those that a test adds, and torch can't be
# imported twice
import torch_pruning  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

DISTRIBUTIONS = {"plain": (), "n0": ("-n", "0"), "n2": ("-n", "2")}


@pytest.fixture(params=DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
def plugin_args(request) -> tuple[str, ...]:
    """The arguments that run a test's pytest plainly, with xdist installed but idle, and on two workers."""
    return request.param


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch):
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


@pytest.fixture(scope="session")
def overlay(tmp_path_factory):
    """A function: `overlay("1.5.3")` is a folder with that torch-pruning alone, for a subprocess's PYTHONPATH."""

    @cache
    def install(version):
        folder = tmp_path_factory.mktemp(f"torch-pruning-{version}-")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*command, f"torch-pruning=={version}"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"torch-pruning {version} can't be installed here: {done.stderr.strip().splitlines()[-1]}")
        return folder

    return install


@pytest.fixture(scope="session")
def llama():
    """A function that builds a small random Llama: `llama(heads, kv_heads, attention="eager", tied=False, hidden=None,
    head_dim=16)`.

    Its weights are large enough that every head and channel matters to the logits.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(heads, kv_heads, attention="eager", tied=False, hidden=None, head_dim=16, layers=2, seed=0):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=hidden or heads * head_dim,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            attn_implementation=attention,
            pad_token_id=0,
        )
        return LlamaForCausalLM(config).eval()

    return build
