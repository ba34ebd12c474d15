"""The first of the page: who leads, how sure that is, what it costs; then the leaderboard itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.choices import some
from harness.page.grid import (
    EMPTY,
    Body,
    Cell,
    Column,
    Grid,
    Row,
    duration,
    scale_of,
    short,
    signed,
    size,
    spread,
    text,
    trimmed,
    whole,
    with_interval,
)
from harness.page.study import GAIN, Study, blank_words, given, mean_of

LEVEL = 0.05
NAMED = 4  # rows in a sentence
FACTS = ("class", "strategy", "prompt", "modality")  # what can be filtered by


@dataclass(frozen=True)
class Fact:
    """One of the answers on top of the page."""

    question: str
    answer: str
    detail: str


# ---------------------------------------------------------------- in short


def summary(study: Study) -> list[Fact]:
    """The leader, how sure that is, its costs and what it was measured on."""
    if not study.ranked:
        none = Fact("Which leads?", "none yet", "No run is complete and scored, so that nothing is ranked.")
        return [none, _over(study)]
    best = study.ranked[0]
    value = f"{best[study.primary]:.3f}"
    low, high = best.get(f"{study.primary}_ci_low"), best.get(f"{study.primary}_ci_high")
    interval = f" {spread(low, high)}, 95 % interval" if given(low) else ""
    lead = Fact("Which leads?", best["label"], f"{study.primary} {value}{interval}")
    return [lead, _certainty(study, best), *_against(study, best), _cost(study, best), _over(study)]


def _certainty(study: Study, best: Mapping[str, Any]) -> Fact:
    equal = _equal(study, best["name"])
    low, high = best.get("rank_low"), best.get("rank_high")
    place = f"rank {low:.0f} to {high:.0f}" if given(low) and low != high else "rank 1"
    if equal is None:
        detail = "There is no other row to compare it with."
    elif equal:
        detail = f"Not told apart from it on these samples: {some([study.label(name) for name in equal], NAMED)}."
    else:
        detail = f"Better than every row it was tested against (p < {LEVEL}, corrected)."
    return Fact("How sure is that?", place, detail)


def _equal(study: Study, name: str) -> list[str] | None:
    """Rows whose difference from one is not significant, in the order of the ranks; None where nothing was tested."""
    table = study.beside("significance", metric=study.primary)
    if table.empty:
        return None
    own = table[(table["row_a"] == name) | (table["row_b"] == name)]
    same = own[own["p_holm"] >= LEVEL]
    names = {*same["row_a"], *same["row_b"]} - {name}
    return [row["name"] for row in study.ranked if row["name"] in names] if len(own) else None


def _against(study: Study, best: Mapping[str, Any]) -> list[Fact]:
    """Whether the leader beats every control; nothing where there are none."""
    own = study.beside("controls", metric=study.primary, row=best["name"])
    if own.empty:
        return []
    sign = -1 if study.primary in study.board.lower else 1
    beaten = (sign * own["difference"] > 0) & (own["p_holm"] < LEVEL)
    names, question = ", ".join(sorted(set(own["control"]))), "Better than no captioner?"
    if beaten.all():
        return [Fact(question, "yes", f"Better than every control: {names} (p < {LEVEL}, corrected).")]
    left = ", ".join(sorted(set(own[~beaten]["control"])))
    return [Fact(question, "not shown", f"Not better, or not told apart on these samples, than the control: {left}.")]


def _cost(study: Study, best: Mapping[str, Any]) -> Fact:
    runs = study.scored(best)
    fit, memory = mean_of(runs, "train_seconds"), size(best["peak_memory_bytes"]).text
    parts = [
        f"{memory} of memory" if memory != EMPTY else "",
        f"{best['params_trained_pct']:.3g} % of the weights trained" if given(best["params_trained_pct"]) else "",
        f"fitted in {duration(fit).text}" if fit else "",
    ]
    speed = best["captions_per_s"]
    answer = f"{short(speed).text} captions/s" if given(speed) else "not recorded"
    return Fact("What does it cost?", answer, "; ".join(part for part in parts if part) + _quicker(study, best))


def _quicker(study: Study, best: Mapping[str, Any]) -> str:
    """Of the rows that cannot be told apart from the best, one that captions at least a fifth faster."""
    equal = [row for row in study.ranked if row["name"] in (_equal(study, best["name"]) or ())]
    known = [row for row in equal if given(row["captions_per_s"]) and given(best["captions_per_s"])]
    fast = max(known, key=lambda row: row["captions_per_s"], default=None)
    if fast is None or fast["captions_per_s"] < 1.2 * best["captions_per_s"]:
        return ""
    return f". Quicker and not told apart: {fast['label']}, {short(fast['captions_per_s']).text} captions/s"


def _over(study: Study) -> Fact:
    key, rows = study.board.key, study.rows
    n = max((int(row["n"]) for row in rows if given(row["n"])), default=0)
    left = sum(not given(row["rank"]) and not row["control"] for row in rows)
    unranked = f"; {left} incomplete and not ranked" if left else ""
    detail = f"{key.dataset}, split {key.split}, weights {key.weights}, protocol {key.protocol}"
    return Fact("Measured on what?", f"{n:,} samples", f"{detail}; {len(study.ranked)} rows ranked{unranked}.")


# ---------------------------------------------------------------- leaderboard


def leaderboard(study: Study) -> Grid:
    """All rows: ranked, then incomplete ones, then controls apart. What is the same in every row is left out."""
    table = study.captioners
    facts = [Column(_words(name), name, text) for name in FACTS if table[name].nunique() > 1]
    gains = [
        Column(f"over {name.removeprefix(GAIN)}", name, signed, hint="by how much it is better than this control")
        for name in map(str, table)
        if name.startswith(GAIN)
    ]
    measures = {name: _measure(study, name) for name in study.measures}
    columns = [
        Column("rank", form=_rank, hint="with the ranks that are plausible", ascending=True),
        Column("model", "model", text),
        *facts,
        *(column for name, column in measures.items() if name in study.board.headlines),
        *gains,
        Column("captions/s", "captions_per_s", short),
        Column("trained %", "params_trained_pct", short, hint="share of the weights that were trained", ascending=True),
        Column("memory", "peak_memory_bytes", size, hint="peak while captioning", ascending=True),
        *([Column("seeds", "seeds", whole)] if table["seeds"].nunique() > 1 else []),
        *(column for name, column in measures.items() if name not in study.board.headlines),
        *([Column("n", "n", whole, hint="samples")] if _lengths(study) > 1 else []),
    ]
    bodies: dict[str, list[Row]] = {"": [], "Incomplete: not ranked": [], "Controls: no captioner, not ranked": []}
    for row in study.rows:
        title = list(bodies)[2 if row["control"] else 0 if given(row["rank"]) else 1]
        shown = {**row, "model": row["model"] + blank_words(row["control"])}
        cells = [column.cell(shown) for column in columns]
        bodies[title].append(Row(cells, {name: str(row[name]) for name in ("model", *FACTS)}))
    caption = f"Rows by {study.primary}; {_common(study)}"
    return trimmed(Grid("leaderboard", caption, columns, [Body(rows, title) for title, rows in bodies.items()], 1))


def _lengths(study: Study) -> int:
    """How many different numbers of samples the rows have."""
    return int(study.board.table["n"].nunique())


def _measure(study: Study, name: str) -> Column:
    """A score with its interval. Bars are drawn for the column that ranks: more of them would tell less."""
    low, high, less = f"{name}_ci_low", f"{name}_ci_high", name in study.board.lower
    lows, highs = ([row.get(end) for row in study.rows] for end in (low, high))
    scale = scale_of(lows, highs) if name == study.primary else None

    def score(row: Mapping[str, Any]) -> Cell:
        return with_interval(row[name], row.get(low), row.get(high), scale)

    hint = study.meanings[name] + ("; less is better" if less else "")
    return Column(_words(name), form=score, hint=hint, ascending=less)


def _words(name: str) -> str:
    return {"modality": "modality label", "umls_f1": "UMLS F1"}.get(name, name.replace("_", " "))


def _rank(row: Mapping[str, Any]) -> Cell:
    if not given(row["rank"]) or row["control"]:
        return Cell("–")
    low, high = row.get("rank_low"), row.get("rank_high")
    small = f"{low:.0f}–{high:.0f}" if given(low) and low != high else ""
    return Cell(f"{row['rank']:.0f}", float(row["rank"]), small)


def _common(study: Study) -> str:
    """What all rows share, said once in place of a column."""
    table = study.captioners
    same = [f"{_words(name)} {table[name].iloc[0]}" for name in FACTS if table[name].nunique() == 1]
    same += [f"{table['n'].iloc[0]:,.0f} samples"] if _lengths(study) == 1 else []
    return f"in all rows: {', '.join(same)}" if same else "95 % bootstrap intervals over the samples"


def filters(study: Study) -> dict[str, list[str]]:
    """Fact -> the values to choose from, where there are several."""
    found = {name: sorted({str(row[name]) for row in study.rows}) for name in FACTS}
    return {name: values for name, values in found.items() if len(values) > 1}
