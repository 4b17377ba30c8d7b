"""The command line as its users meet it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trecx import cli
from trecx.cli import main

from .test_cost import GOLDEN


@pytest.mark.slow
def test_models_as_json_are_the_golden_integers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {(row["task"], row["method"]): row for row in json.loads(capsys.readouterr().out)}
    for key, (params, flops, macs, _) in GOLDEN.items():
        assert rows[key]["params"] == params
        assert rows[key]["flops"] == flops
        assert rows[key]["macs"] == macs
        assert rows[key]["trainable_params"] < params


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--task", "kws", "--method", "resnet"], "choose one of baseline, baseline_mlperf, trecx_ev"),
        (["train", "--task", "kws"], "--method"),
        (["train", "--task", "kws", "--method", "baseline", "--epochs", "x"], "invalid int value: 'x'"),
        (["evaluate", "no-such-record"], "no record 'no-such-record'"),
        (["curve", "no-such-record"], "no record 'no-such-record'"),
        (["curve", "a**b"], "no record 'a**b'"),
        (["curve", "*"], "no record '*'"),
        (["curve", "kws-*"], "no record 'kws-*'"),
        (["curve", "any", "--points", "1"], "points 1 is impossible: choose 0 for all thresholds, or 2 to 100000"),
        (["curve", "any", "--points", "-2"], "points -2 is impossible"),
        (["curve", "any", "--points", "100001"], "points 100001 is impossible"),
        (["data", "mnist"], "cifar10"),
        (["fly"], "models"),
        ([], "COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert says in captured.err


def test_json_has_null_where_a_number_is_not_finite(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = [{"a": float("nan"), "b": [float("inf"), (np.float64("nan"), 1.5)], "c": {"d": -float("inf")}, "e": True}]
    monkeypatch.setitem(cli._COMMANDS, "data", lambda options: answer)
    assert main(["data", "--json"]) == 0
    assert capsys.readouterr().out == '[{"a": null, "b": [null, [null, 1.5]], "c": {"d": null}, "e": true}]\n'


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("models", "train", "evaluate", "curve", "data"))


def test_data_lists_the_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--json"]) == 0
    assert "speech_commands" in {row["name"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.slow
def test_train_evaluate_and_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and a refusal in processes of their own, as a shell starts them."""
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path))

    def trecx(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "trecx", *words], capture_output=True, text=True, check=False)

    made = trecx("train", "--task", "kws", "--method", "trecx_no_ev", "--epochs", "1", "--width", "0.25", "--json")
    assert made.returncode == 0, made.stderr
    assert "100%" in made.stderr  # the progress bar
    record = json.loads(made.stdout)["record"]
    assert main(["evaluate", record, "--threshold", "0.5", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["accuracies"] == answer["recorded"]
    assert main(["curve", Path(record).name, "--points", "3", "--json"]) == 0
    assert [row["threshold"] for row in json.loads(capsys.readouterr().out)] == [1.0, 0.5, 0.0]
    assert trecx("evaluate", record, "--threshold", "1.5").returncode == 2


def test_a_table_is_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long cells take several lines there; in a pipe a row stays a line."""
    rows = [
        {"way": "a smaller network " * 5 + f"number {k}", "saved": "50.0 [46.1, 54.0]", "seeds": k} for k in (3, 10)
    ]
    monkeypatch.setitem(cli._COMMANDS, "models", lambda options: rows)
    assert cli.main(["models"]) == 0
    piped = capsys.readouterr().out.splitlines()
    assert len(piped) == 3
    assert [line.split()[-1] for line in piped] == ["seeds", "3", "10"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(line.split()) for line in lines).count("smaller") == 10
    assert sum(line.endswith(" 50.0 [46.1, 54.0]      3") for line in lines) == 1
    monkeypatch.setenv("COLUMNS", "30")
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.endswith("saved  50.0 [46.1, 54.0]\nseeds  10\n")
