"""The plugin in pytest, from outside: what users see, and what the record holds."""

from __future__ import annotations

import json

import pytest

from pytest_llmprune.fixes import applicable
from pytest_llmprune.record.store import latest, read
from pytest_llmprune.resources import suites_dir

ONE = ("--llmprune-prune", "ffn:0.2", "-k", "test_quality or test_groups_are or (test_pruning and equals_masked)")


def test_the_suites_run_and_are_recorded_alike_however_they_are_distributed(pytester, plugin_args):
    result = pytester.runpytest_subprocess(str(suites_dir()), *plugin_args, *ONE)
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    record = read(latest(pytester.path))
    assert sorted(str(item.key) for item in record.items) == [
        "test_graph::test_groups_are_those_the_architecture_implies[tiny]",
        "test_pruning::test_pruned_equals_masked[tiny-ffn-0.2-taylor]",
        "test_quality::test_quality[tiny-ffn-0.2-taylor]",
    ]
    assert record.missing == ()
    assert record.exit_status == 0
    assert record.fixes == applicable()
    quality = next(item for item in record.items if item.verdicts)
    assert quality.measurements["ppl_ratio"] == pytest.approx(
        quality.measurements["ppl"] / quality.measurements["dense.ppl"]
    )
    assert {verdict["outcome"] for verdict in quality.verdicts} == {"pass"}
    sidecar = latest(pytester.path).with_suffix(".details") / quality.details
    assert len(json.loads(sidecar.read_text())["nll"]["pruned"]) == quality.protocol["windows"]
    assert quality.sources == {"dense.ppl": "measured", "dense.coherence": "measured"}
    result.stdout.fnmatch_lines(
        ["tiny (speeds*", "*recipe*perplexity*verdict*", "*ffn*0.2*taylor*pass", "next: llmprune report *"]
    )


def test_a_gate_that_fails_says_everything_and_exits_1(pytester, plugin_args):
    result = pytester.runpytest_subprocess(
        str(suites_dir()),
        *plugin_args,
        *("--llmprune-prune", "ffn:0.5", "--llmprune-importance", "magnitude", "-k", "test_quality"),
        *("--llmprune-gate", "coherence_ratio>=0.99", "--llmprune-gate", "ppl_ratio<=1.2"),
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*ffn at 0.5 by magnitude on tiny: 2 of 2 gates not passed",
            "*fail: coherence_ratio is *, must be at least 0.99",
            "*fail: ppl_ratio is * (95% interval * to *), must be at most 1.2",
            "*ppl: dense *, pruned *",
            "*the worst continuation (*, score *): *",
            "*to repeat: *--llm-model tiny --llmprune-prune ffn:0.5 --llmprune-importance magnitude -k test_quality",
            "*to accept: *--llmprune-gate 'ppl_ratio<=*'*",
            "next: pytest *",
        ]
    )
    assert read(latest(pytester.path)).exit_status == 1


def test_a_strangers_directory_runs_its_own_tests_and_is_told_how_to_run_ours(pytester, plugin_args):
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("--llm-model", "tiny", *plugin_args)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["no suite of llmprune was collected; to run them: pytest *suites --llm-model tiny"])


def test_a_researchers_test_uses_the_fixtures_and_is_recorded(pytester):
    pytester.makepyfile(
        """
        from pytest_llmprune.prune.recipes import Case

        def test_mine(llm_prune, quality_gate, llm_record):
            found = quality_gate(llm_prune(Case("ffn", 0.1, "taylor")))
            llm_record.measure("mine", found["ppl_ratio"])

        def test_copy(llm_model, llm_dense, llm_tokenizer, llm_graph, tiny_llama_graph, llm_settings, llm_spec):
            assert llm_model is not llm_dense.model
            assert llm_settings.models == (llm_spec,)
            assert len(llm_tokenizer) == llm_model.config.vocab_size
            assert len(llm_graph.module2node) == len(tiny_llama_graph.module2node)
        """
    )
    result = pytester.runpytest_subprocess("--strict-markers")
    result.assert_outcomes(passed=2)
    (item,) = read(latest(pytester.path)).items
    assert item.key.test == "test_mine"
    assert item.measurements["mine"] == item.measurements["ppl_ratio"]


def test_threads_that_wait_leave_the_core_to_others_unless_the_user_says_otherwise(pytester, monkeypatch):
    pytester.makepyfile(
        """
        import os

        def test_it(llm_settings, llm_record):
            llm_record.note(os.environ["OMP_WAIT_POLICY"])
        """
    )
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert pytester.runpytest_subprocess().ret == 0
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert pytester.runpytest_subprocess().ret == 0
    records = sorted(pytester.path.glob(".llmprune/*/0*.json"))
    assert [read(file).items[0].notes for file in records] == [("PASSIVE",), ("ACTIVE",)]


def test_meta_weights_run_what_needs_no_weights_and_say_so(pytester):
    result = pytester.runpytest_subprocess(
        str(suites_dir()),
        "--llm-model",
        "HuggingFaceTB/SmolLM2-135M",
        "--llmprune-weights",
        "meta",
        "-k",
        "not miniature and not (library and family) and not (fuzz and (network or config))",
    )
    assert result.ret == 0
    record = read(latest(pytester.path))
    ran = {"test_graph", "test_defects", "test_benchmark", "test_library", "test_tracer_fuzz"}
    assert {item.key.suite for item in record.items} == ran
    assert "meta weights: there is nothing to compute with" in record.deselected
    result.stdout.fnmatch_lines(["* deselected: meta weights: there is nothing to compute with"])


def test_a_run_whose_every_item_is_skipped_does_not_pass(pytester):
    result = pytester.runpytest_subprocess(
        str(suites_dir()), "--llmprune-prune", "width:0.1", "-k", "test_pruning and equals_masked"
    )
    result.assert_outcomes(skipped=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["every item was skipped: nothing was measured, so nothing has passed"])


def test_a_worker_that_dies_is_a_failure_and_its_item_is_named(pytester):
    pytester.makepyfile(
        """
        import os

        def test_dies(llm_record):
            os.kill(os.getpid(), 9)

        def test_lives(llm_record):
            llm_record.measure("x", 1.0)
        """
    )
    result = pytester.runpytest_subprocess("-n", "2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["planned, and not finished: *::test_dies[[][]]"])


def test_a_measurement_that_is_nan_fails_its_test(pytester):
    pytester.makepyfile("def test_nan(llm_record):\n    llm_record.measure('ppl', float('nan'))\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*ppl is nan, which is no measurement*"])


def test_record_and_report_are_written_where_asked(pytester):
    pytester.makepyfile("def test_one(llm_record):\n    llm_record.measure('x', 1.0)\n")
    result = pytester.runpytest_subprocess("--llmprune-record", "r.json", "--llmprune-report", "r.html")
    assert result.ret == 0
    assert read(pytester.path / "r.json") == read(latest(pytester.path))
    assert "test_one" in (pytester.path / "r.html").read_text()


def test_help_fixtures_and_markers_speak_of_us(pytester):
    text = pytester.runpytest_inprocess("--help").stdout.str()
    for flag in ("--llmprune-model", "--llm-model", "--llmprune-prune", "--llmprune-gate", "llmprune_model (linelist)"):
        assert flag in text
    text = pytester.runpytest_inprocess("--markers").stdout.str()
    for marker in ("llm_gpu", "llm_network", "llm_slow", "known_defect(id)"):
        assert f"@pytest.mark.{marker}: " in text
    text = pytester.runpytest_inprocess("--fixtures").stdout.str()
    for fixture in (
        "llm_settings",
        "llm_spec",
        "llm_dense",
        "llm_model",
        "llm_tokenizer",
        "llm_graph",
        "llm_prune",
        "quality_gate",
        "llm_record",
    ):
        assert fixture in text
    assert (
        "no docstring available"
        not in text.split("fixtures defined from pytest_llmprune")[1].split("fixtures defined from")[0]
    )


def test_a_baseline_is_held_against_the_run(pytester, plugin_args):
    pytester.makepyfile(
        """
        import os

        def test_one(llm_record):
            llm_record.measure("ppl", float(os.environ.get("PPL", "50")))

        def test_two(llm_record):
            pass
        """
    )
    assert pytester.runpytest_subprocess("--llmprune-record", "base.json").ret == 0
    against = ("--llmprune-baseline", "base.json", *plugin_args)
    same = pytester.runpytest_subprocess(*against, "--llmprune-fail-on", "ppl:1%")
    assert same.ret == 0
    same.stdout.fnmatch_lines(["safe against base.json: 2 items compared"])

    fewer = pytester.runpytest_subprocess(*against, "-k", "one")
    assert fewer.ret == 1
    fewer.stdout.fnmatch_lines(
        ["broken: *::test_two[[][]]: was deselected, so it is not compared", "broken against base.json: 1 item*"]
    )

    pytester._monkeypatch.setenv("PPL", "60")
    worse = pytester.runpytest_subprocess(*against, "--llmprune-fail-on", "ppl:1%")
    assert worse.ret == 1
    worse.stdout.fnmatch_lines(
        ["*ppl 50 before, 60 now: 20% worse, more than 1% (*)", "broken against base.json: 2 items*"]
    )
