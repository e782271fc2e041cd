"""`train.py` in processes that can be killed: imported once, forked per run, a tiny network in ResNet-18's place.

Reads requests as JSON lines and answers each with one:
    {"argv": [...], "log": path, ...}  -> {"pid": n}      a fork runs train.main() with these arguments
    {"wait": pid}                      -> {"status": n}   as subprocess.Popen.returncode
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from conftest import TinyNet  # noqa: E402

import train  # noqa: E402
from cxr_helpers.command import run_command  # noqa: E402
from cxr_helpers.models import resnet  # noqa: E402

pretraining, evaluating, fitting = (  # the doors' attributes of these names are functions
    importlib.import_module(f"cxr_helpers.{name}") for name in ("pretrain", "evaluate", "loop.fit")
)
POINTS: dict[str, tuple[Any, str]] = {  # a call of these is where a run is killed
    "checkpoint": (fitting, "write_bytes"),
    "step": (pretraining.Pretext, "step"),
    "probe": (pretraining, "validate"),
    "start": (pretraining, "start_run"),
    "table": (fitting, "write_table"),
    "weights": (pretraining, "write_bytes"),
    "record": (pretraining, "write_json"),
    "clean-up": (pretraining, "discard_checkpoint"),
    "metrics": (evaluating, "evaluate"),
}


def _kill_soon(seconds: float, number: int) -> None:
    def kill() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    threading.Thread(target=kill, daemon=True).start()


def _arm(point: str, call: int, delay: float, number: int = signal.SIGKILL) -> None:
    """Send this process a signal `delay` seconds into the given call of a point."""
    owner, name = POINTS[point]
    real, calls = getattr(owner, name), [0]

    def armed(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            _kill_soon(delay, number)
        return real(*arguments, **named)

    setattr(owner, name, armed)


def _run(request: dict[str, Any]) -> int:
    """In the fork: what the interpreter does with a script, without starting one."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing is left behind if the campaign is killed
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "most_bytes" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["most_bytes"], request["most_bytes"]))
    if request.get("checkpoint_every_step"):
        fitting.LOOK_EVERY, fitting._Course._due = 1, lambda self, least: True
    if "kill" in request:
        _arm(**request["kill"])
    sys.argv = ["train.py", *request["argv"]]
    try:
        run_command("train.py", train.train)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    resnet.BUILDERS["resnet18"] = TinyNet
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            status = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            print(json.dumps({"status": status}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = _run(request)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
