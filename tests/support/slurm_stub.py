"""Stand-ins for sbatch, srun, sacct and scancel: the jobs of an array are processes on this machine.

`python slurm_stub.py NAME ARGUMENTS`; the state lies in $STUB, one file per job with the id of its process.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

STUB = Path(os.environ["STUB"])


def sbatch(arguments):
    script = Path(arguments[-1]).read_text()
    (STUB / "script.sh").write_text(script)
    count = int(re.search(r"--array=0-(\d+)", script)[1]) + 1
    for index in range(count):
        out = re.search(r"--output=(\S+)", script)[1].replace("%A", "12").replace("%a", str(index))
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "SLURM_JOB_ID": str(100 + index),
            "SLURM_ARRAY_JOB_ID": "12",
            "SLURM_ARRAY_TASK_ID": str(index),
        }
        with Path(out).open("ab") as log:
            process = subprocess.Popen(
                ["bash", arguments[-1]], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        (STUB / f"12_{index}").write_text(str(process.pid))
    print("Submitted batch job 12")


def srun(arguments):
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if "=" not in flag and flag not in ("--unbuffered",):
            rest.pop(0)
    environment = {
        **os.environ,
        **{f"SLURM_{name}": "0" for name in ("PROCID", "LOCALID", "NODEID")},
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "here",
    }
    os.execvpe(rest[0], rest, environment)


def sacct(_):
    print("JobID|State|NodeList")
    for file in sorted(STUB.glob("12_*")):
        print(f"{file.name}|{'RUNNING' if alive(int(file.read_text())) else 'FAILED'}|here")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def scancel(arguments):
    with (STUB / "cancelled").open("a") as file:
        file.write(f"{arguments[0]}\n")


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
