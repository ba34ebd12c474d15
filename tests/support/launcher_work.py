"""Tasks for the launchers: each ends its process in another way."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from harness import config
from harness.contracts import Sweep


def work(task):
    folder = Path(task["folder"])
    said = {
        "pid": os.getpid(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "begin": time.time(),
        "cwd": str(Path.cwd()),
    }
    (folder / f"{task['id']}.begun").write_text(str(os.getpid()))
    match task["kind"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
        case "crash":
            ctypes.string_at(0)
        case "raise":
            raise ValueError("broken")
        case "sleep":
            time.sleep(task["seconds"])
    (folder / f"{task['id']}.json").write_text(json.dumps({**said, "end": time.time()}))


def build(name, **options):
    return config.build_node(config.choice("launcher", name) | options, "launcher")


def request(folder, kinds, width=2, devices=(), **values):
    tasks = [{"id": f"t{n}", "kind": kind, "folder": str(folder), **values} for n, kind in enumerate(kinds)]
    return Sweep(work, tasks, width, devices, folder / "launcher")


WARM = ["harness.run", "harness.cells.worker", "model_zoo.smolvlm", "model_zoo.cnn_transformer", "harness.cells.cell"]
"""The server outlives the tests here: cells of later ones are forked from it, and would each import torch anew."""


def warm():
    build("queue").prepare(WARM)


def launch(launcher, sweep):
    warm()
    return dict(launcher.launch(sweep))


if __name__ == "__main__":
    work(json.loads(Path(sys.argv[1]).read_text()))
