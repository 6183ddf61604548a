"""What a user may name as a side, and what is refused in one line."""

from __future__ import annotations

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.upgrade.overlay import differing
from pytest_llmprune.upgrade.requirement import check_sides, parse_all


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tp" / "torch_pruning").mkdir(parents=True)
    (tmp_path / "tr" / "src" / "transformers").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "torch_pruning-1.6.1-py3-none-any.whl").write_bytes(b"")
    (tmp_path / "bad.whl").write_bytes(b"")
    (tmp_path / "reqs.txt").write_text("# pins\ntorch-pruning==1.5.3  # old\nnumpy==2.0 \\\n    --hash=sha256:00\n\n")
    (tmp_path / "options.txt").write_text("-r reqs.txt\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("torch-pruning==1.5.3", "torch-pruning", "1.5.3"),
        ("Torch_Pruning == 1.5.3", "torch-pruning", "1.5.3"),
        ("1.5.3", "torch-pruning", "1.5.3"),
        ("torch-pruning", "torch-pruning", ""),
        ("transformers>=5", "transformers", ""),
        ("torch==2.*", "torch", ""),
        ("./tp", "torch-pruning", ""),
        ("tr", "transformers", ""),
        ("torch_pruning-1.6.1-py3-none-any.whl", "torch-pruning", ""),
        ("git+https://example.org/VainF/Torch-Pruning", "torch-pruning", ""),
        ("git+https://example.org/VainF/Torch-Pruning.git@master#egg=x", "torch-pruning", ""),
        ("transformers @ git+https://example.org/t.git@v5", "transformers", ""),
    ],
)
def test_one_requirement(place, text, name, version):
    (req,) = parse_all([text])
    assert (req.name, req.version) == (name, version)


def test_a_file_of_requirements(place):
    assert [(req.name, req.version) for req in parse_all(["reqs.txt"])] == [
        ("torch-pruning", "1.5.3"),
        ("numpy", "2.0"),
    ]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["numpy==2"], "what can be upgraded is torch-pruning, transformers, torch, not numpy"),
        (["./none"], "./none: no such file or directory"),
        (["none.txt"], "none.txt: no such file or directory"),
        (["none.whl"], "none.whl: no such file or directory"),
        (["bad.whl"], "bad.whl: "),
        (["other"], "other: the directory is a checkout of none of"),
        (["torch pruning"], "'torch pruning' is no requirement"),
        ([""], "'' is no requirement"),
        (["options.txt"], "only requirements are read from a file, no options: -r reqs.txt"),
        (["1.5.3", "torch-pruning==1.6.1"], "torch-pruning is named twice on one side"),
    ],
)
def test_what_is_refused(place, texts, says):
    with pytest.raises(UserError) as caught:
        parse_all(texts)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_sides_name_the_same_packages():
    check_sides(parse_all(["1.5.3", "transformers==4.57.6"]), parse_all(["transformers==5.0", "1.6.1"]))
    with pytest.raises(
        UserError, match="--from names torch-pruning and --to transformers, which are different packages"
    ):
        check_sides(parse_all(["1.5.3"]), parse_all(["transformers==5.0"]))


def test_only_what_differs_is_installed():
    here = {"torch": "2.13.0+cpu", "torch-pruning": "1.6.1"}
    reqs = parse_all(["torch==2.13.0", "torch-pruning==1.6.0"])
    assert [req.name for req in differing(reqs, here)] == ["torch-pruning"]
    assert [req.name for req in differing(parse_all(["torch-pruning"]), here)] == ["torch-pruning"]
    assert differing(parse_all(["1.6.1"]), here) == ()
