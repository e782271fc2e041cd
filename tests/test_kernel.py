"""Interrupting the kernel stops a run in a notebook, and the same cell goes on with it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel
from test_resume import CLOCK

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300  # seconds for any one answer of a kernel on a busy machine
BEGIN = """
import time
from dataclasses import replace
from importlib import import_module
from conftest import TinyNet
from cxr_helpers import PretrainConfig, RuntimeConfig, load_dataset, pretrain
from cxr_helpers.models import resnet
resnet.BUILDERS["resnet18"] = TinyNet
import_module("cxr_helpers.data.phantom")._CHEST_IMAGES.update(train=48, val=24, test=24)
dataset = load_dataset("phantom", size=64)
narrow = {"hidden_dim": 16, "output_dim": 8}
config = PretrainConfig(dataset="phantom", size=64, epochs=20, batch_size=12, options=narrow)
runtime = RuntimeConfig(results="stopped", device="cpu", precision="32-true", threads=1, progress=False)
"""
CELL = "run = pretrain(config, dataset, runtime, on_epoch=lambda history: time.sleep(0.05))"  # a second in all


class Kernel:
    """A kernel of its own, and the cells one runs in it."""

    def __init__(self, folder: Path) -> None:
        paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        own = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "jupyter")}
        environment = {**os.environ, **own, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(PATIENCE, cwd=str(folder), env=environment)

    def start(self, code: str, **expressions: str) -> str:
        return self.client.execute(code, store_history=False, user_expressions=expressions)

    def end(self, message: str) -> dict[str, Any]:
        """The reply to a cell: its status, and the error or the expressions asked for."""
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == message:
                return reply["content"]

    def run(self, code: str, **expressions: str) -> dict[str, Any]:
        """The values of expressions once a cell has run."""
        content = self.end(self.start(code, **expressions))
        assert content["status"] == "ok", "\n".join(content["traceback"])
        return {name: value["data"]["text/plain"] for name, value in content["user_expressions"].items()}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kernels are interrupted by other means there")
def test_an_interrupted_cell_says_how_to_go_on_and_goes_on_to_the_same_end(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(BEGIN)
    cell = kernel.start(CELL)
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "stopped").glob("runs/*/history.csv")):
        assert time.monotonic() < deadline, "the run has not begun"
        time.sleep(0.01)
    kernel.manager.interrupt_kernel()
    content = kernel.end(cell)
    assert (content["status"], content["ename"]) == ("error", "StoppedError")
    assert "stopped by SIGINT after " in content["evalue"] and "all of it is kept" in content["evalue"]
    assert "make the same call again, in a notebook by running the same cell" in "".join(content["traceback"])
    (stopped,) = (tmp_path / "stopped" / "runs").iterdir()
    done = len(pd.read_csv(stopped / "history.csv"))
    assert 1 <= done < 20 and (stopped / "checkpoint.pt").is_file() and not (stopped / "lock.json").exists()
    after = "import signal, sys"  # the kernel is as it was: its own handler, and nothing of the run's
    kind = "issubclass(sys.last_type, KeyboardInterrupt)"
    handler = "signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert kernel.run(after, kind=kind, handler=handler) == {"kind": "True", "handler": "True"}
    assert kernel.run(CELL, status="run.status")["status"] == "'resumed'"
    kernel.run('pretrain(config, dataset, replace(runtime, results="whole"))')
    (whole,) = (tmp_path / "whole" / "runs").iterdir()
    assert {path.name for path in stopped.iterdir()} == {path.name for path in whole.iterdir()}
    assert (stopped / "backbone.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()
    histories = [pd.read_csv(run / "history.csv") for run in (stopped, whole)]
    pd.testing.assert_frame_equal(*(table.drop(columns=CLOCK) for table in histories), check_exact=True)
    assert list(histories[0]["session"].unique()) == [1, 2]
