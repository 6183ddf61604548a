"""The texts that models are measured and calibrated on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import UserError
from ..resources import data_dir

EVALUATION, CALIBRATION = "hamlet", "macbeth"


def builtin(name: str) -> str:
    """A shipped text: `hamlet` (held out from the tiny model's training) to evaluate on, `macbeth` to calibrate on."""
    return (data_dir() / "texts" / f"{name}.txt").read_text(encoding="utf-8")


def evaluation_text(choice: str) -> str:
    """The text that a user's choice means: `builtin`, `wikitext2` (test split), or a file: plain text, or `.jsonl` with
    one object per line that has its document under "text". Documents and rows are joined by empty lines.

    Raises UserError if it can't be read, is not UTF-8, is no such JSONL, or is empty.
    """
    if choice == "builtin":
        return builtin(EVALUATION)
    if choice == "wikitext2":
        return _wikitext2()
    try:
        text = Path(choice).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"text {choice!r}: not UTF-8") from None
    except OSError as error:
        raise UserError(f"text {choice!r}: {error.strerror}") from None
    if choice.endswith(".jsonl"):
        text = _documents(choice, text)
    if not text.strip():
        raise UserError(f"text {choice!r}: the file is empty, so there is nothing to measure on")
    return text


def _documents(choice: str, text: str) -> str:
    documents = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            document = None
        if not isinstance(document, str):
            raise UserError(f'text {choice!r}: line {number} is no JSON object with a string under "text"')
        documents.append(document)
    return "\n\n".join(documents)


def text_hash(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _wikitext2() -> str:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("text wikitext2: needs the package datasets (pip install datasets), or give a file") from None
    try:
        rows = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="test")
    except Exception as error:
        raise UserError(f"text wikitext2: it can't be fetched ({type(error).__name__}); give a file instead") from None
    return "\n\n".join(rows["text"])
