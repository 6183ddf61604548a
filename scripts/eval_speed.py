"""Tokens per second and transient memory of the perplexity loop, beside what it could be and what it must not be.

    python scripts/eval_speed.py --model smollm2 --dtype bfloat16

In one run, in turn, medians over rounds:

    bare      a forward of the decoder and a loop over chunks of the head with cross-entropy, nothing else
    ours      quality.perplexity.measure
    naive     model(ids).logits.float(), then cross-entropy
    lm-eval   HFLM.loglikelihood_rolling of as many tokens, where lm-eval is installed

Transient memory is what a loop holds at its peak beyond what was held before it: on a GPU what torch allocated, else
what the allocations and releases of one window, as torch.profiler lists them, add up to.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pytest_llmprune.models.load import load
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.quality.likelihood import CHUNK_LOGITS
from pytest_llmprune.quality.perplexity import PerplexityProtocol, measure, tokenise, windows_of
from pytest_llmprune.quality.texts import EVALUATION, builtin


def bare(model, windows):
    """The least that has to be done: no abstraction, no checks."""
    size = CHUNK_LOGITS // model.config.vocab_size
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([window.ids], device=model.device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
            total = 0.0
            for some, wanted in zip(hidden.split(size), ids[0, 1:].split(size), strict=True):
                logits = model.lm_head(some).float()
                total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()


def naive(model, windows):
    """As most scripts do it: the whole window's logits over the vocabulary, once more in float32."""
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([window.ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()


def harness(loaded, text, window):
    """lm-eval's loop as a function of (model, windows), or None where lm-eval is not installed."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    theirs = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, max_length=window, batch_size=1)

    def run(_model, windows):
        tokens = sum(window.scored + 1 for window in windows)
        document = loaded.tokenizer.decode(tokenise(loaded.tokenizer, text)[:tokens])
        request = Instance("loglikelihood_rolling", doc={}, arguments=(document,), idx=0)
        theirs.loglikelihood_rolling([request], disable_tqdm=True)

    return run


def transient_bytes(loop, model, windows):
    """The most bytes that a loop over `windows` holds beyond what is held before it."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        loop(model, windows)
        return torch.cuda.max_memory_allocated(model.device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loop(model, windows)
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: where others use the cores too")
    options = parser.parse_args()

    loaded = load(ModelSpec(options.model, dtype=options.dtype))
    protocol = PerplexityProtocol(options.window, options.window, options.windows)
    text = builtin(EVALUATION)
    windows = windows_of(tokenise(loaded.tokenizer, text), protocol, None)
    loops = {"bare": bare, "ours": measure, "naive": naive, "lm-eval": harness(loaded, text, options.window)}
    loops = {name: loop for name, loop in loops.items() if loop is not None}
    seconds = {name: [] for name in loops}
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    for number in range(options.rounds + 1):
        for name, loop in loops.items():
            started = clock()
            loop(loaded.model, windows)
            if number:
                seconds[name].append(clock() - started)
    tokens = sum(len(window.ids) for window in windows)
    speeds = {name: tokens / statistics.median(times) for name, times in seconds.items()}
    memory = {name: transient_bytes(loop, loaded.model, windows[:1]) for name, loop in loops.items()}
    for name in loops:
        against = f"{speeds['ours'] / speeds[name]:.3f}"
        share = f"{memory['ours'] / memory[name]:.3f}"
        print(
            f"{name:8} {speeds[name]:8.1f} tokens/s, {memory[name] / 2**20:7.1f} MiB transient;"
            f" ours: {against} of its speed, {share} of its memory"
        )


if __name__ == "__main__":
    main()
