"""The `capbench` command. Imports nothing heavy until a subcommand runs, so that help is instant."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

from harness import ranks
from harness.contracts import CapBenchError, RequestError
from harness.registry import groups

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}
"""What a disk can have that is no fault of ours: no traceback."""

COMMANDS = {
    "run": ("harness.run", "one cell, or a sweep with -m: fit, captions, scores, leaderboard"),
    "score": ("harness.score", "every run that lacks a metric, or captions=FILE references=FILE"),
    "leaderboard": ("harness.leaderboard", "rebuild all tables"),
    "compare": ("harness.compare", "two runs: differences with intervals and p-values, the samples that differ most"),
    "data": (
        "harness.data",
        "what is wrong with a dataset, row by row; its conversion to shards that are quick to read",
    ),
    "submission": ("harness.submission", "check a file for ImageCLEFmedical Caption, or write one from a run"),
    "show": ("harness.show", "one run or fit: what it is, scores, costs, where it comes from"),
    "diff": ("harness.diff", "in what two runs or fits differ"),
    "reproduce": ("harness.reproduce", "a run once more from its stored configuration, compared caption by caption"),
    "verify": ("harness.verify", "every recorded hash against the files: nothing was edited"),
    "ls": ("harness.ls", "fits and runs with their state and disk use"),
    "clean": ("harness.clean", "delete checkpoints of finished fits and other things that nothing needs"),
    "params": ("harness.params", "what each strategy trains in the real architectures, beside the published counts"),
    "doctor": (
        "harness.doctor",
        "environment, and whether captioners say the same in a batch, padded, merged, reloaded",
    ),
    "list": ("harness.listing", "models, strategies, metrics, datasets, prompts, protocols and what is found of them"),
}

HELP = """\
usage: capbench COMMAND [KEY=VALUE ...]

Compares fine-tuned medical image captioners: one command from data to a leaderboard with intervals.

{commands}

`capbench COMMAND --help` says more. First steps, no download needed:

  capbench run                                   the default cell on the embedded demonstration
  capbench run -m model='glob(*)' lora=none,targeted
  capbench run experiment=demo                   the embedded benchmark
  capbench run dataset=table dataset.path=FILE.csv   your own pictures and captions
"""

RUN_HELP = """\
usage: capbench run [-m] [--dry-run] [--config-dir DIR] [--cfg] [KEY=VALUE ...]

Runs one cell: dataset -> prompt -> captioner (strategy) -> fit -> captions -> scores -> leaderboard. What is finished
is skipped, what was interrupted goes on. Results lie in results=FOLDER (default: results).

  -m, --multirun     a sweep: values separated by commas, or glob(*) for all choices of a group
  --dry-run          print the cells, what is done, what would run, its memory and time; run nothing
  --config-dir DIR   a folder of your own yaml files (model/mine.yaml, ...) joins the choices
  --cfg              print the resolved configuration and do nothing
{groups}
Each cell of a sweep has a process of its own, its log in results/logs. launcher.jobs=N runs N at once; launcher=slurm
submits them; launcher=torchrun gives each several processes.
Values anywhere in the tree: seed=1  train.epochs=2  lora.rank=8  generate.max_new_tokens=40  dataset.limit=100
Exit codes: 0 done; 1 some runs failed (tables are built all the same); 2 the request was wrong.
"""

SCORE_HELP = """\
usage: capbench score [--config-dir DIR] [KEY=VALUE ...]

Without files: scores every run in results=FOLDER that lacks a metric of protocol=NAME, then rebuilds the tables.
With files: captions=FILE references=FILE [images=DIR] results=FOLDER scores a submission; no run is needed.
Files are csv, tsv or jsonl with an id column (its name ends in "id") and a column "caption".

  protocol=NAME      {protocols}
  metrics=[NAME,...] further metrics beside the protocol's: {metrics}
"""

LEADERBOARD_HELP = """\
usage: capbench leaderboard [results=FOLDER] [dataset=NAME] [split=NAME] [weights=NAME] [protocol=NAME] [trials=N]
                            [model=..] [strategy=..] [prompt=..] [modality=..] [sort=COLUMN] [group=COLUMN] [out=FILE]

Rebuilds all tables from the files of the runs: runs.csv, scores.csv, samples.csv of each run, leaderboard.csv, .md,
.tex, significance.csv, agreement.csv, subgroups.csv. These are always whole; what follows is for the terminal and out=.

  model=a,b*         rows by name or glob; also strategy=, prompt=, modality=. Ranks stay those of the whole table
  sort=COLUMN        the best first
  group=COLUMN       of each of its values the best row only: group=model
  out=FILE           what is printed, as .csv, .md or .tex
  permutations=N     draws behind the p-values of significance.csv (10000)
"""

COMPARE_HELP = """\
usage: capbench compare A B [results=FOLDER] [metric=NAME] [top=N] [protocol=NAME] [out=FILE.csv]

Two runs over the same samples, each a run's folder, its name, its id or the beginning of one: the means of every
metric, A - B with a paired bootstrap interval and the p-value of a paired permutation test, and the samples that differ
most by metric=NAME (default: the column that ranks). out=FILE.csv writes all samples with both captions and scores.
"""

SUBMISSION_HELP = """\
usage: capbench submission check captions=FILE [references=FILE | images=FOLDER] [format=NAME]
       capbench submission write run=FOLDER|ID [results=FOLDER] [out=FILE] [references=FILE] [empty=true] [format=NAME]

check: everything for which ImageCLEFmedical Caption's own program would reject the file or cut a caption, by line.
write: a file that passes, from the captions of a run; empty=true writes an empty caption for a failed sample.

  format=NAME        imageclef2026 (default, the strictest), imageclef2025, imageclef2023
  references=FILE    the ground truth, for its ids and their order
Exit codes: 0 the file passes; 1 it would be rejected or cut; 2 the request was wrong.
"""

DATA_HELP = """\
usage: capbench data check DATASET [--config-dir DIR] [dataset.KEY=VALUE ...] [KEY=VALUE ...]
       capbench data prepare DATASET out=FOLDER [dataset.KEY=VALUE ...] [KEY=VALUE ...]

check: reads every row and decodes every picture; writes problems.csv (split, id, kind, severity, detail). A repeated or
interrupted check does not decode again what it knows.
prepare: resized pictures with ids, captions, modalities and concepts in Parquet shards, to be read by
dataset=prepared dataset.root=FOLDER. An interrupted one goes on with the next shard.

  DATASET                {datasets}
  splits=train,valid,test  those that must be there (default: all there are)
  workers=N              processes (default: one for each core)
check:
  out=FOLDER             default: results/check
  write_clean_list=FILE  csv (split,id) of the rows without an error
  smallest=N             pixels of the shorter side below which a picture is tiny (32)
prepare:
  size=N                 pixels of the longer side at most (512); nothing is enlarged
  format=jpeg|webp       jpeg is quicker to read, webp smaller
  quality=N              1 to 100 (95)
Exit codes: 0 done; 1 there are errors, or pictures that were left out; 2 the request was wrong.
"""

SHOW_HELP = """\
usage: capbench show RUN [results=FOLDER] [trials=N]

One run or fit for people: what it is, status, counts, scores with intervals, costs, hashes, trained modules, command,
code and package versions, files, how to reproduce it.

  RUN                the id or folder of a run or fit, or a prefix of either (fits/... for a fit); a path to the folder
"""

DIFF_HELP = """\
usage: capbench diff A B [results=FOLDER] [trials=N]

Everything in which two runs, or two fits, differ: identity, configuration, code, environment, trained modules, counts,
captions, scores, costs; then what is equal in one line. A and B as in `capbench show`; a path may lead to another
results folder.
"""

REPRODUCE_HELP = """\
usage: capbench reproduce RUN [--config-dir DIR] [results=NEWFOLDER] [source=FOLDER] [device=NAME] [tolerance=VALUE]

Runs the stored, resolved configuration of RUN again in results=NEWFOLDER (default: results-reproduced) and compares
identity, captions (sample by sample, exactly) and scores. Says before what of code, packages and platform has changed.

  source=FOLDER      where RUN lies (default: results)
  device=NAME        default: as recorded
  tolerance=VALUE    what the score of a sample may differ by (default: 1e-5)
Exit codes: 0 reproduced; 1 not; 2 the request was wrong.
"""

VERIFY_HELP = """\
usage: capbench verify [RUN ...] [results=FOLDER] [tables=false] [trials=N]

Recomputes every recorded hash: identities and folder names, each caption's checksum and the file's digest, adapters,
scores and the captions they were made from; without RUN also the tables, by a rebuild elsewhere.

  trials=N           with which the tables were made (default: 1000)
Exit codes: 0 all is as it was written; 1 something was edited or damaged: listed; 2 the request was wrong.
"""

LS_HELP = """\
usage: capbench ls [results=FOLDER] [out=FILE.csv]

Fits and runs with status, seed, age and size; orphaned fits (no run uses them), unfinished and failed ones; disk use.
"""

CLEAN_HELP = """\
usage: capbench clean [results=FOLDER] [what=KIND,...] [yes=true]

Lists what would be deleted and how much that frees, then asks. What a running command holds, and what a link leads to,
is kept. Without a terminal it needs yes=true.

  what=checkpoints   of finished fits, whose adapters stay (default, with leftovers)
       leftovers     damaged caches that were set aside, drafts of killed processes
       cache         scores and features of pairs: they are computed again when needed
       orphans       finished fits that no run uses
       failed        runs that ended with an error, with what they had captioned
       logs          the whole errors of failed runs
Exit codes: 0 done, or nothing to do; 1 something could not be deleted; 2 the request was wrong or nobody to ask.
"""

RECORD_HELP = {
    "show": SHOW_HELP,
    "diff": DIFF_HELP,
    "reproduce": REPRODUCE_HELP,
    "verify": VERIFY_HELP,
    "ls": LS_HELP,
    "clean": CLEAN_HELP,
}

PARAMS_HELP = """\
usage: capbench params [--config-dir DIR] [out=FILE] [KEY=VALUE ...]

Total and trained parameters of every model and strategy at the real sizes, counted without weights, beside the
published values. out=FILE writes a csv file with all columns.

  model={models}
  lora={strategies}
Options of a strategy need it named: lora=targeted lora.rank=8
"""

DOCTOR_HELP = """\
usage: capbench doctor [--config-dir DIR] [samples=N] [out=FILE] [KEY=VALUE ...]

Versions and devices, then for each captioner: one by one against all at once, padded against unpadded, adapter against
merged, saved against reloaded: the largest difference of logits and the first differing token.

  model=NAME,...     default: all
  lora=NAME,...      default: targeted, full for the baselines
  weights=hub        the real checkpoints instead of the embedded ones
Exit codes: 0 all is well; 1 something differs by more than rounding; 2 the request was wrong.
"""

LIST_HELP = """\
usage: capbench list models|strategies|metrics|datasets|prompts|protocols [--config-dir DIR]

What can be chosen, with what is installed and which checkpoints are found.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        return _say(_help())
    if command == "--version":
        return _say(f"capbench {metadata.version('capbench')}")
    if command not in COMMANDS:
        return _wrong(f"{command}: no such command; expected one of {', '.join(COMMANDS)}")
    if any(flag in arguments[1:] for flag in ("-h", "--help")):
        return _say(_command_help(command))
    return _guarded(COMMANDS[command][0], arguments[1:])


def _guarded(module: str, arguments: Sequence[str]) -> int:
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
    return HELP.format(commands="\n".join(f"  {name:12} {text}" for name, (_, text) in COMMANDS.items()))


def _command_help(command: str) -> str:
    found = groups()
    if command == "run":
        lines = "".join(f"  {g + '=':12} {', '.join(names)}\n" for g, names in found.items() if g != "metric")
        return RUN_HELP.format(groups=f"\nChoices (one yaml each, see conf/):\n{lines}")
    if command == "score":
        return SCORE_HELP.format(protocols=", ".join(found["protocol"]), metrics=", ".join(found["metric"]))
    if command == "doctor":
        return DOCTOR_HELP
    if command == "compare":
        return COMPARE_HELP
    if command == "data":
        return DATA_HELP.format(datasets=", ".join(found["dataset"]))
    if command == "submission":
        return SUBMISSION_HELP
    if command in RECORD_HELP:
        return RECORD_HELP[command]
    if command == "params":
        return PARAMS_HELP.format(models=",".join(found["model"]), strategies=",".join(found["lora"]))
    return LEADERBOARD_HELP if command == "leaderboard" else LIST_HELP


if __name__ == "__main__":
    sys.exit(main())
