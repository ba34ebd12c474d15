"""What `capbench COMMAND --help` says. Fields in braces are the choices below conf/."""

from __future__ import annotations

from harness.choices import groups

UNSHOWN = ("metric", "classifier")
"""Groups that `capbench run` does not choose from."""

ALL = """\
usage: capbench COMMAND [KEY=VALUE ...]

Compares fine-tuned medical image captioners: one command from data to a leaderboard with intervals.

{commands}

`capbench COMMAND --help` says more. First steps, no download needed:

  capbench run                                   the default cell on the embedded demonstration
  capbench run -m model='glob(*)' lora=none,targeted
  capbench run experiment=demo                   the embedded benchmark
  capbench run dataset=table dataset.path=FILE.csv   your own pictures and captions
"""

RUN = """\
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

SCORE = """\
usage: capbench score [--config-dir DIR] [KEY=VALUE ...]

Without files: scores every run in results=FOLDER that lacks a metric of protocol=NAME, then rebuilds the tables.
With files: captions=FILE references=FILE [images=DIR] results=FOLDER scores a submission; no run is needed.
Files are csv, tsv or jsonl with an id column (its name ends in "id") and a column "caption".

  protocol=NAME      {protocols}
  metrics=[NAME,...] further metrics beside the protocol's: {metrics}
"""

LEADERBOARD = """\
usage: capbench leaderboard [results=FOLDER] [dataset=NAME] [split=NAME] [weights=NAME] [protocol=NAME] [trials=N]
                            [model=..] [strategy=..] [prompt=..] [modality=..] [sort=COLUMN] [group=COLUMN] [out=FILE]

Rebuilds all tables from the files of the runs: runs.csv, scores.csv, samples.csv of each run, leaderboard.csv, .md,
.tex, significance.csv, agreement.csv, subgroups.csv, and ablation.csv where modality labels were given. They are always
whole; what follows is for the terminal and out=.

  model=a,b*         rows by name or glob; also strategy=, prompt=, modality=. Ranks stay those of the whole table
  sort=COLUMN        the best first
  group=COLUMN       of each of its values the best row only: group=model
  out=FILE           what is printed, as .csv, .md or .tex
  permutations=N     draws behind the p-values of significance.csv (10000)
"""

REPORT = """\
usage: capbench report [results=FOLDER] [dataset=NAME] [split=NAME] [weights=NAME] [protocol=NAME] [out=FILE.html]
                       [samples=N] [pictures=false] [trials=N] [permutations=N]

Rebuilds the tables, then writes one page that needs no network: the leaderboard with intervals, sorting and filters,
which rows differ, what a score costs, captions by length, concepts and modality, ablation, agreement of metrics, costs,
failures, samples side by side, provenance. Its plots are also PNG and SVG files in results/plots.

  out=FILE.html      default: report.html in results
  dataset=NAME       of several leaderboards this one; also split=, weights=, protocol= (default: the newest)
  samples=N          in the gallery: best, worst, most disagreed, evenly spread ones (default: 120)
  pictures=false     texts only: a page with pictures passes them on to whoever gets it
"""

COMPARE = """\
usage: capbench compare A B [results=FOLDER] [metric=NAME] [top=N] [protocol=NAME] [out=FILE.csv]

Two runs over the same samples, each a run's folder, its name, its id or the beginning of one: the means of every
metric, A - B with a paired bootstrap interval and the p-value of a paired permutation test, and the samples that differ
most by metric=NAME (default: the column that ranks). out=FILE.csv writes all samples with both captions and scores.
"""

SUBMISSION = """\
usage: capbench submission check captions=FILE [references=FILE | images=FOLDER] [format=NAME]
       capbench submission write run=FOLDER|ID [results=FOLDER] [out=FILE] [references=FILE] [empty=true] [format=NAME]

check: everything for which ImageCLEFmedical Caption's own program would reject the file or cut a caption, by line.
write: a file that passes, from the captions of a run; empty=true writes an empty caption for a failed sample.

  format=NAME        imageclef2026 (default, the strictest), imageclef2025, imageclef2023
  references=FILE    the ground truth, for its ids and their order
Exit codes: 0 the file passes; 1 it would be rejected or cut; 2 the request was wrong.
"""

DATA = """\
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

MODALITY = """\
usage: capbench modality fit [--config-dir DIR] [dataset=NAME] [dataset.KEY=VALUE ...] [out=FOLDER] [KEY=VALUE ...]

Trains a ResNet to tell the modalities of the split "train" apart, calibrates it on "valid", measures it on "test". The
folder is for modality=predicted modality.checkpoint=FOLDER; its metrics.json, confusion.csv and calibration.csv say
how good it is. A finished fit is not repeated. Samples without a known modality are left out and counted.

  out=FOLDER         default: results/modality
  weights=hub        ResNet-50 from the hub (or classifier.hub=FOLDER) instead of a small one from nothing
  classifier.epochs=N, .batch_size, .learning_rate, .size, .workers; seed=N; device=NAME; bins=N of calibration.csv
"""

SHOW = """\
usage: capbench show RUN [results=FOLDER] [trials=N]

One run or fit for people: what it is, status, counts, scores with intervals, costs, hashes, trained modules, command,
code and package versions, files, how to reproduce it.

  RUN                the id or folder of a run or fit, or a prefix of either (fits/... for a fit); a path to the folder
"""

DIFF = """\
usage: capbench diff A B [results=FOLDER] [trials=N]

Everything in which two runs, or two fits, differ: identity, configuration, code, environment, trained modules, counts,
captions, scores, costs; then what is equal in one line. A and B as in `capbench show`; a path may lead to another
results folder.
"""

REPRODUCE = """\
usage: capbench reproduce RUN [--config-dir DIR] [results=NEWFOLDER] [source=FOLDER] [device=NAME] [tolerance=VALUE]

Runs the stored, resolved configuration of RUN again in results=NEWFOLDER (default: results-reproduced) and compares
identity, captions (sample by sample, exactly) and scores. Says before what of code, packages and platform has changed.

  source=FOLDER      where RUN lies (default: results)
  device=NAME        default: as recorded
  tolerance=VALUE    what the score of a sample may differ by (default: 1e-5)
Exit codes: 0 reproduced; 1 not; 2 the request was wrong.
"""

VERIFY = """\
usage: capbench verify [RUN ...] [results=FOLDER] [tables=false] [trials=N]

Recomputes every recorded hash: identities and folder names, each caption's checksum and the file's digest, adapters,
scores and the captions they were made from; without RUN also the tables, by a rebuild elsewhere.

  trials=N           with which the tables were made (default: 1000)
Exit codes: 0 all is as it was written; 1 something was edited or damaged: listed; 2 the request was wrong.
"""

LS = """\
usage: capbench ls [results=FOLDER] [out=FILE.csv]

Fits and runs with status, seed, age and size; orphaned fits (no run uses them), unfinished and failed ones; disk use.
"""

CLEAN = """\
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

PAPER = """\
usage: capbench paper [results=FOLDER] [protocol=NAME] [parameters=false] [trials=N] [out=FILE.csv]

The published tables with their averages recomputed and the inconsistent cells named; our own rows beside them, score
by score with differences; the effect of the modality in the prompt, and trained parameters, published and our own.

  protocol=NAME      the board of ours to show (paper). Of another one it is said why it cannot be compared
  parameters=false   do not count parameters
  out=FILE.csv       all of it as one table (default: paper.csv in results, where that folder is there)
"""

PARAMS = """\
usage: capbench params [--config-dir DIR] [out=FILE] [KEY=VALUE ...]

Total and trained parameters of every model and strategy at the real sizes, counted without weights, beside the
published values. out=FILE writes a csv file with all columns.

  model={models}
  lora={strategies}
Options of a strategy need it named: lora=targeted lora.rank=8
"""

DOCTOR = """\
usage: capbench doctor [--config-dir DIR] [samples=N] [out=FILE] [KEY=VALUE ...]

Versions and devices, then for each captioner: one by one against all at once, padded against unpadded, adapter against
merged, saved against reloaded: the largest difference of logits and the first differing token.

  model=NAME,...     default: all
  lora=NAME,...      default: targeted, full for the baselines
  weights=hub        the real checkpoints instead of the embedded ones
Exit codes: 0 all is well; 1 something differs by more than rounding; 2 the request was wrong.
"""

BENCH = """\
usage: capbench bench [models=NAME,...] [size=twin|real] [baseline=FILE.csv] [out=FILE.csv] [KEY=VALUE ...]

Samples per second of a fit and captions per second, with pictures and with kept features of the vision tower; seconds
a picture for decoding, processor and tower; peak memory. Each captioner has a process of its own. Fixed shapes and
weights, no download. Beside a baseline each figure is also told as a ratio.

  size=real          random weights of the published sizes: smolvlm, qwen2_vl, llava_15 (memory: about 4 bytes a weight)
  samples=N batch_size=N max_new_tokens=N side=PIXELS device=NAME threads=N
Exit codes: 0 done; 1 a captioner could not be measured; 2 the request was wrong.
"""

LIST = """\
usage: capbench list models|strategies|metrics|datasets|prompts|modalities|protocols [--config-dir DIR]

What can be chosen, with what is installed and which checkpoints are found.
"""

TEXTS = {
    "run": RUN,
    "score": SCORE,
    "leaderboard": LEADERBOARD,
    "report": REPORT,
    "compare": COMPARE,
    "submission": SUBMISSION,
    "data": DATA,
    "modality": MODALITY,
    "show": SHOW,
    "diff": DIFF,
    "reproduce": REPRODUCE,
    "verify": VERIFY,
    "ls": LS,
    "clean": CLEAN,
    "paper": PAPER,
    "params": PARAMS,
    "doctor": DOCTOR,
    "bench": BENCH,
    "list": LIST,
}


def text(command: str) -> str:
    """The help of a command."""
    found = groups()
    choices = "".join(f"  {g + '=':12} {', '.join(names)}\n" for g, names in found.items() if g not in UNSHOWN)
    return TEXTS[command].format(
        groups=f"\nChoices (one yaml each, see conf/):\n{choices}",
        protocols=", ".join(found["protocol"]),
        metrics=", ".join(found["metric"]),
        datasets=", ".join(found["dataset"]),
        models=",".join(found["model"]),
        strategies=",".join(found["lora"]),
    )
