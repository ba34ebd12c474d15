"""The `capbench` command. Imports nothing heavy until a subcommand runs, so that help is instant."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from importlib import import_module

from harness import usage
from harness.contracts import CapBenchError, RequestError
from harness.machine import ranks

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}
"""What a disk can have that is no fault of ours: no traceback."""

COMMANDS = {
    "run": ("harness.run", "one cell, or a sweep with -m: fit, captions, scores, leaderboard"),
    "score": ("harness.commands.score", "every run that lacks a metric, or captions=FILE references=FILE"),
    "leaderboard": ("harness.commands.leaderboard", "rebuild all tables"),
    "report": (
        "harness.commands.report",
        "one HTML page of a leaderboard: plots, significance, costs, samples side by side",
    ),
    "compare": (
        "harness.commands.compare",
        "two runs: differences with intervals and p-values, the samples that differ most",
    ),
    "data": (
        "harness.commands.data",
        "what is wrong with a dataset, row by row; its conversion to shards that are quick to read",
    ),
    "modality": ("harness.commands.modality", "train the classifier of the imaging modality behind modality=predicted"),
    "submission": ("harness.commands.submission", "check a file for ImageCLEFmedical Caption, or write one from a run"),
    "show": ("harness.commands.show", "one run or fit: what it is, scores, costs, where it comes from"),
    "diff": ("harness.commands.diff", "in what two runs or fits differ"),
    "reproduce": (
        "harness.commands.reproduce",
        "a run once more from its stored configuration, compared caption by caption",
    ),
    "verify": ("harness.commands.verify", "every recorded hash against the files: nothing was edited"),
    "ls": ("harness.commands.ls", "fits and runs with their state and disk use"),
    "clean": ("harness.commands.clean", "delete checkpoints of finished fits and other things that nothing needs"),
    "paper": ("harness.commands.paper", "the published study, recomputed, with our own rows and parameters beside it"),
    "params": (
        "harness.commands.params",
        "what each strategy trains in the real architectures, beside the published counts",
    ),
    "doctor": (
        "harness.commands.doctor",
        "environment, and whether captioners say the same in a batch, padded, merged, reloaded",
    ),
    "bench": (
        "harness.commands.bench",
        "samples and captions per second, time per stage and peak memory of captioners",
    ),
    "list": (
        "harness.commands.list",
        "models, strategies, metrics, datasets, prompts, modalities, protocols, and what is found",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        return _say(_help())
    if command == "--version":
        from importlib import metadata

        return _say(f"capbench {metadata.version('capbench')}")
    if command not in COMMANDS:
        return _wrong(f"{command}: no such command; expected one of {', '.join(COMMANDS)}")
    if any(flag in arguments[1:] for flag in ("-h", "--help")):
        return _say(usage.text(command))
    return _guarded(COMMANDS[command][0], arguments[1:])


def _guarded(module: str, arguments: Sequence[str]) -> int:
    import logging

    # bitsandbytes recommends an optional CPU kernel at each import, whether or not anything is quantised
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        return int(import_module(module).main(arguments))
    except RequestError as error:
        return _wrong(str(error))
    except CapBenchError as error:
        sys.stderr.write(f"capbench: failed: {error}\n")
        return 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"capbench: failed: {error.strerror}{where}; make room or get the rights, then repeat\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("capbench: interrupted; repeat the command to go on\n")
        return 130


def _wrong(message: str) -> int:
    if ranks.speaker():  # of several processes under torchrun, one
        sys.stderr.write(f"capbench: {message}\n")
    return 2


def _say(text: str) -> int:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    return 0


def _help() -> str:
    return usage.ALL.format(commands="\n".join(f"  {name:12} {text}" for name, (_, text) in COMMANDS.items()))


if __name__ == "__main__":
    sys.exit(main())
