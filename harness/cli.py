"""The `capbench` command. Imports nothing heavy until a subcommand runs, so that help is instant."""

from __future__ import annotations

import errno
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from harness.choices import Option, conf_dir, groups, options_of
from harness.contracts import CapBenchError, RequestError
from harness.machine import ranks

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}
"""What a disk can have that is no fault of ours: no traceback."""

NAMES = (
    "score leaderboard report compare data modality submission show diff reproduce verify ls clean paper params doctor "
    "bench list"
)
COMMANDS = {"run": "harness.run"} | {name: f"harness.commands.{name}" for name in NAMES.split()}
"""The module of each command. Its docstring is the help: the first line is "capbench NAME: what it does."."""

WIDTH, INDENT = 120, 28  # of the help, and of what an option means in it

FIRST = """\
usage: capbench COMMAND [KEY=VALUE ...]

Compares fine-tuned medical image captioners: one command from data to a leaderboard with intervals.

{commands}

`capbench COMMAND --help` says more. First steps, no download needed:

  capbench run                                   the default cell on the embedded demonstration
  capbench run -m model='glob(*)' lora=none,targeted
  capbench run experiment=demo                   the embedded benchmark
  capbench run dataset=table dataset.path=FILE.csv   your own pictures and captions

Exit codes: 0 done; 1 something failed; 2 the request was wrong; 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        return _say(_overview())
    if command == "--version":
        from importlib import metadata

        return _say(f"capbench {metadata.version('capbench')}")
    if command not in COMMANDS:
        return _wrong(f"{command}: no such command; expected one of {', '.join(COMMANDS)}")
    if any(flag in arguments[1:] for flag in ("-h", "--help")):
        return _say(_help(command))
    return _guarded(COMMANDS[command], arguments[1:])


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


# ---------------------------------------------------------------- help


def _overview() -> str:
    about = {name: _docstring(name).partition("\n")[0].partition(": ")[2].rstrip(".") for name in COMMANDS}
    return FIRST.format(commands="\n".join(f"  {name:12} {text}" for name, text in about.items()))


def _help(command: str) -> str:
    """The docstring of the command's module, in which {model} is the list of models, and the lines of its yaml."""
    text, known = _docstring(command), groups()
    for group, names in known.items():
        text = text.replace(f"{{{group}}}", ", ".join(names))
    lines = (textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in text.split("\n"))
    files = sorted(path.stem for path in conf_dir().glob(f"{command}*.yaml") if path.stem.split("_")[0] == command)
    return "\n".join(lines) + "".join(_section(name, options_of(name), known) for name in files)


def _docstring(command: str) -> str:
    """The docstring of a module that is not imported."""
    path = Path(__file__).parent.parent.joinpath(*COMMANDS[command].split(".")).with_suffix(".py")
    return path.read_text(encoding="utf-8").split('"""', 2)[1]


def _section(name: str, found: Sequence[Option], known: Mapping[str, Sequence[str]]) -> str:
    """Choices, then options, each as it is typed, with its default."""
    choices = [_line(one, f"{one.comment}; one of {', '.join(known[one.key])}") for one in found if one.group]
    others = [_line(one, one.comment) for one in found if not one.group]
    words = name.replace("_", " ")
    parts = {f"Choices of {words}, each a yaml file below conf/, with defaults:": choices} if choices else {}
    parts[f"Options of {words}, with defaults:"] = others
    return "".join("\n".join(["", title, *lines, ""]) for title, lines in parts.items())


def _line(one: Option, meaning: str) -> str:
    head, indent = f"  {one.key}={one.default} ", " " * INDENT
    text = textwrap.fill(meaning, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return head.ljust(INDENT) + text[INDENT:] if len(head) <= INDENT else f"{head.rstrip()}\n{text}"


if __name__ == "__main__":
    sys.exit(main())
