"""Tasks for the launchers: each ends its process in another way."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path


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


if __name__ == "__main__":
    work(json.loads(Path(sys.argv[1]).read_text()))
