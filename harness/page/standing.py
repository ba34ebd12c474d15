"""The first of the page: who leads, how sure that is, what it costs; then the leaderboard itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.page.grid import (
    EMPTY,
    Body,
    Cell,
    Column,
    Grid,
    Row,
    duration,
    number,
    scale_of,
    short,
    size,
    spread,
    text,
    trimmed,
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
        return [
            Fact("Which leads?", "none yet", "No run is complete and scored, so that nothing is ranked."),
            _over(study),
        ]
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
        return Fact("How sure is that?", place, "There is no other row to compare it with.")
    if not equal:
        return Fact(
            "How sure is that?", place, f"Better than every row it was tested against (p < {LEVEL}, corrected)."
        )
    names = ", ".join(study.label(name) for name in equal[:NAMED])
    more = f" and {len(equal) - NAMED} more" if len(equal) > NAMED else ""
    return Fact("How sure is that?", place, f"Not told apart from it on these samples: {names}{more}.")


def _equal(study: Study, name: str) -> list[str] | None:
    """Rows whose difference from one is not significant, in the order of the ranks; None where nothing was tested."""
    table = study.tables.get("significance")
    if table is None:
        return None
    own = table[(table["metric"] == study.primary) & ((table["row_a"] == name) | (table["row_b"] == name))]
    same = own[own["p_holm"] >= LEVEL]
    names = {other for pair in zip(same["row_a"], same["row_b"], strict=True) for other in pair} - {name}
    return [row["name"] for row in study.ranked if row["name"] in names] if len(own) else None


def _against(study: Study, best: Mapping[str, Any]) -> list[Fact]:
    """Whether the leader beats every control; nothing where there are none."""
    table = study.tables.get("controls")
    if table is None:
        return []
    own = table[(table["metric"] == study.primary) & (table["row"] == best["name"])]
    if not len(own):
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
    named = [c for c in FACTS if table[c].nunique() > 1]
    gains = [str(c) for c in table if str(c).startswith(GAIN)]
    columns = [Column("rank", ascending=True, hint="with the ranks that are plausible"), Column("model", number=False)]
    columns += [Column(_words(name), number=False) for name in named]
    columns += [_measure(study, name) for name in study.measures if name in study.board.headlines]
    columns += [
        Column(f"over {name.removeprefix(GAIN)}", hint="by how much it is better than this control") for name in gains
    ]
    columns += [
        Column("captions/s"),
        Column("trained %", hint="share of the weights that were trained", ascending=True),
        Column("memory", hint="peak while captioning", ascending=True),
        *([Column("seeds")] if table["seeds"].nunique() > 1 else []),
        *(_measure(study, name) for name in study.measures if name not in study.board.headlines),
        *([Column("n", hint="samples")] if _lengths(study) > 1 else []),
    ]
    scales = {name: _scale(study, name) for name in study.measures}
    bodies: dict[str, list[Row]] = {"": [], "Incomplete: not ranked": [], "Controls: no captioner, not ranked": []}
    for row in study.rows:
        title = list(bodies)[2 if row["control"] else 0 if given(row["rank"]) else 1]
        bodies[title].append(_row(study, row, named, gains, scales))
    caption = f"Rows by {study.primary}; {_common(study)}"
    return trimmed(Grid("leaderboard", caption, columns, [Body(rows, title) for title, rows in bodies.items()], 1))


def _lengths(study: Study) -> int:
    """How many different numbers of samples the rows have."""
    return int(study.board.table["n"].nunique())


def _measure(study: Study, name: str) -> Column:
    less = name in study.board.lower
    return Column(_words(name), hint=study.meanings[name] + ("; less is better" if less else ""), ascending=less)


def _words(name: str) -> str:
    return {"modality": "modality label", "umls_f1": "UMLS F1"}.get(name, name.replace("_", " "))


def _scale(study: Study, name: str) -> tuple[float, float] | None:
    """Bars are drawn for the column that ranks: more of them would tell less."""
    if name != study.primary:
        return None
    lows, highs = ([row.get(f"{name}_ci_{end}") for row in study.rows] for end in ("low", "high"))
    return scale_of(lows, highs)


def _row(
    study: Study, row: Mapping[str, Any], named: Sequence[str], gains: Sequence[str], scales: Mapping[str, Any]
) -> Row:
    cells = [_rank(row), text(row["model"] + blank_words(row["control"])), *(text(row[name]) for name in named)]
    scores = {
        name: with_interval(row[name], row.get(f"{name}_ci_low"), row.get(f"{name}_ci_high"), scales[name])
        for name in study.measures
    }
    cells += [cell for name, cell in scores.items() if name in study.board.headlines]
    cells += [number(row[name], sign=True) for name in gains]
    cells += [short(row["captions_per_s"]), short(row["params_trained_pct"]), size(row["peak_memory_bytes"])]
    cells += [number(row["seeds"], 0)] if study.captioners["seeds"].nunique() > 1 else []
    cells += [cell for name, cell in scores.items() if name not in study.board.headlines]
    cells += [number(row["n"], 0)] if _lengths(study) > 1 else []
    return Row(cells, {name: str(row[name]) for name in ("model", *FACTS)})


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
