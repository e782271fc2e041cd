"""The command line: every flag explained, one line for every mistake, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from datafiles import write_folder

import train
from cxr_helpers import recipes
from cxr_helpers.command import parse, run_command
from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.runs import StoppedError

ROOT = Path(__file__).resolve().parents[1]
QUICK = [
    *("--size", "64", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--threads", "1", "--no-progress"),
    *("--probe.folds", "2", "--probe.cs", "0.01", "1"),
]


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets for its process is taken back."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    """The words that name forty images of two classes, and where results go."""
    counts = {f"{split}/{name}": n for split, n in (("train", 10), ("val", 5), ("test", 5)) for name in ("a", "b")}
    write_folder(tmp_path / "data" / "films", counts, size=64)
    return ["--dataset", "films", "--root", str(tmp_path / "data"), "--results", str(tmp_path / "results"), *QUICK]


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    run_command("train.py", train.train)


def complaint(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line that the command ends with; `sys.exit` with a text prints it and makes the status 1."""
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, *arguments)
    line = caught.value.code
    assert isinstance(line, str) and line.startswith("train.py: ") and "\n" not in line
    return line


def test_help_names_and_explains_every_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    names = [f.name for kind in (PretrainConfig, RuntimeConfig, train.Command) for f in fields(kind)]
    names += [f"probe.{f.name}" for f in fields(ProbeConfig)]
    assert [name for name in names if f"--{name.replace('_', '-')}" not in text] == []
    for words in ("CIFAR", "counts how often", "at least 8", "above 0; default 0.07)", "--no-progress"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset pneumoniamnst", "data set must be one of .*did you mean pneumoniamnist"),
        ("--method byol", "method must be one of simclr, vicreg, supervised or my_module:Name, got 'byol'"),
        ("--policy strong", "policy must be one of .*, got 'strong'"),
        ("--options temprature 0.1", "options of simclr must be among temperature, .* got temprature"),
        ("--options temperature 0", "temperature must be above 0, got 0"),
        ("--options temperature", "options must be followed by names, each with its value, got 'temperature'"),
        ("--policy-changes cropp 0.1", "a policy's field must be one of .*, got 'cropp'"),
        ("--policy-changes crop_scale_min 7", "crop_scale"),
        ("--batch-size 1", "batch_size must be at least 2, got 1"),
        ("--epochs -1", "epochs must be at least 0, got -1"),
        ("--epochs ten", r"epochs must be a whole number \(an int\), got 'ten'"),
        ("--epochs=ten", r"epochs must be a whole number \(an int\), got 'ten'"),
        ("--batch_size 'a b'", r"batch_size must be a whole number \(an int\), got 'a b'"),
        ("--probe.cs 1 x", r"probe.cs must be a finite number \(an int or a float\), got 'x'"),
        ("--dataset", "--dataset: expected one argument; train.py --help explains it"),
        ("--sise 64", "options must be those that train.py --help lists, got '--sise 64'"),
        ("frog", "options must be those that train.py --help lists, got 'frog'"),
        ("--encoder random --epochs 3", "epochs must be left out where --encoder trains nothing, got 3"),
        ("--max-train-images 0", "max_train_images must be at least 1, got 0"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    line = complaint(monkeypatch, "--size", "64", "--results", str(results), *shlex.split(arguments))
    assert re.search(message, line), line
    assert not results.exists()


def test_flags_have_dashes_or_underscores_and_the_last_one_counts() -> None:
    words = (
        "--batch_size None --batch-size 8 --lr 1e-3 --options temperature 0.1 hidden_dim 64 --policy-changes gamma -1"
    )
    words += " --no-progress --compile --probe.knn_k 3 --probe.cs 1 10 --encoder random a_b=c --test"
    config, runtime, probe, command = parse(train.KINDS, words.split(), program="train.py", description="")
    assert (config.batch_size, config.lr, config.policy_changes) == (8, 1e-3, {"gamma": "-1"})
    assert config.options == {"temperature": "0.1", "hidden_dim": "64"}
    assert (runtime.progress, runtime.compile) == (False, True)
    assert (probe.knn_k, probe.cs, command.encoder, command.test) == (3, (1.0, 10.0), ("random", "a_b=c"), True)


def test_a_mistake_is_answered_before_torch_is_loaded() -> None:
    code = (
        "import sys, train\ntry: train.train(['--method', 'x'])\nexcept ValueError: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_images_without_any_label_are_trained_on_and_nothing_is_probed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_net: None
) -> None:
    folder = write_folder(tmp_path / "plain", {"train": 20}, size=64)
    words = ("--dataset", str(folder), "--results", str(tmp_path / "results"))
    run_main(monkeypatch, *words, *QUICK)
    assert "no labels, nothing probed · val loss " in capsys.readouterr().out
    assert "must be labelled to be probed" in complaint(monkeypatch, *words, "--size", "64", "--encoder", "random")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped by SIGINT at once"),
        (StoppedError(signal.SIGINT, "after step 3 of 9 in epoch 2"), 130, "stopped by SIGINT after step 3 of 9"),
        (None, 143, "stopped by SIGTERM at once"),
    ],
)
def test_an_interruption_says_how_to_go_on(
    error: BaseException | None,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(arguments: object) -> None:
        if error is None:
            signal.raise_signal(signal.SIGTERM)
        else:
            raise error

    monkeypatch.setattr(train, "train", interrupt)
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--dataset", "a b", "--fresh", "--seed", "1")
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == status and line.startswith(f"train.py: {words}")
    assert line.endswith("; go on with: python train.py --dataset 'a b' --seed 1")  # --fresh would begin anew


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "train", lambda words: None)
    run_main(monkeypatch)
    assert warnings.formatwarning("the run collapses", UserWarning, "a.py", 1) == "train.py: the run collapses\n"


def test_the_command_trains_probes_and_counts_readings_of_test(
    films: list[str],
    tmp_path: Path,
    tiny_net: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    films += ["--options", "hidden_dim", "16", "output_dim", "8", "--policy-changes", "gamma", "0.2"]
    run_main(monkeypatch, *films)
    run_main(monkeypatch, *films, "--test")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("trained ") and " val auc " in first and " test auc " not in first
    assert second.startswith("loaded ") and " val auc " in second and " test auc " in second
    assert first.split()[1] == second.split()[1]
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((folder / "metrics.json").read_text())["test_reads"] == 1


def test_a_draw_of_the_images_can_be_asked_for_and_repeated(
    films: list[str], tmp_path: Path, tiny_net: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_main(monkeypatch, *films)  # another run: the draw decides what is learnt
    run_main(monkeypatch, *films, "--max-train-images", "16", "--max-eval-images", "6")
    records = [json.loads(file.read_text()) for file in tmp_path.glob("results/runs/*/environment.json")]
    (drawn,) = (record["command"] for record in records if "drawn" in record["data"])
    assert len(records) == 2 and drawn.endswith(" --max-train-images 16 --max-eval-images 6")
    run_main(monkeypatch, *shlex.split(drawn)[2:], *films[2:6])
    assert len(list(tmp_path.glob("results/runs/*"))) == 2


def test_every_recorded_run_is_named_by_the_command_in_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [file.parent for file in (ROOT / "results" / "runs").glob("*/environment.json")]
    assert folders
    for folder in folders:
        stored, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "environment"))
        words = shlex.split(environment["command"])[2:]
        config, _, _, asked = parse(train.KINDS, words, program="train.py", description="")
        data = SimpleNamespace(name=stored["dataset"], fingerprint=stored["fingerprint"])
        if "encoder" in stored:
            (encoder,) = asked.encoder
            assert encoder.removeprefix("results/runs/") == stored["encoder"] and recipes.run_id(stored) == folder.name
            assert [getattr(config, name) for name in ("dataset", "size", "seed")] == [
                stored[name] for name in ("dataset", "size", "seed")
            ] or encoder not in ("random", "imagenet")  # the seed of a run's encoder is its run's
            continue
        monkeypatch.setattr(recipes, "_digest_of", lambda *_, digest=stored["init_sha256"]: digest)  # records only
        assert recipes.run_id(recipes.record_of(recipes.resolve(config), data)) == folder.name


def command(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *launcher, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600, check=False)


@pytest.mark.slow
def test_a_real_run_that_is_killed_and_terminated_goes_on_with_the_command_it_prints(
    films: list[str], tmp_path: Path
) -> None:
    films += ["--epochs", "3"]
    whole = command(*films)
    assert whole.returncode == 0 and whole.stdout.splitlines()[-1].startswith("trained "), whole.stderr
    again = command(*films)
    assert again.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1].replace("trained ", "loaded ", 1)
    stopped, script = tmp_path / "stopped", [sys.executable, str(ROOT / "train.py"), *films, "--results"]
    for rows, number in ((1, signal.SIGKILL), (2, signal.SIGTERM)):  # when so many epochs are in the history
        with subprocess.Popen([*script, str(stopped)], stderr=subprocess.PIPE, text=True) as process:
            while sum(len(f.read_text().splitlines()) - 1 for f in stopped.glob("runs/*/history.csv")) < rows:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            said = process.communicate()[1]
        assert process.returncode in (-number, 128 + number), said
    resumed = command(*shlex.split(said.splitlines()[-1].partition("; go on with: python ")[2])[1:])
    assert resumed.returncode == 0 and resumed.stdout.splitlines()[-1].startswith("resumed "), resumed.stderr
    (a,), (b,) = ((tmp_path / name / "runs").iterdir() for name in ("results", "stopped"))
    assert {path.name for path in a.iterdir()} == {path.name for path in b.iterdir()}
    for name in ("backbone.safetensors", "predictions_val.csv.gz", "metrics.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), f"{name} differs"


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_write_one_run(films: list[str], tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    odd = command(*films, "--batch-size", "9", launcher=(*launcher, "2"))
    assert odd.returncode != 0 and "multiple of the number of processes, got 9 for 2" in odd.stderr
    assert not (tmp_path / "results").exists()
    done = command(*films, launcher=(*launcher, "2"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and done.stdout.startswith("trained ")  # the other prints nothing
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2
    again = command(*films, launcher=(*launcher, "1"))
    assert again.stdout.startswith("loaded "), again.stderr
    assert not list(folder.glob("checkpoint*")) and not (folder / "lock.json").exists()
