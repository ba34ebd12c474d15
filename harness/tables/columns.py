"""From the files of the runs to tidy tables. The only file that knows column names; every step is table -> table."""

RUN_COLUMNS = (
    "run_id", "fit_id", "dataset", "split", "n_requested", "n_ok", "n_failed", "n_empty", "n_truncated", "n_distinct",
    "model", "class", "weights", "strategy", "prompt", "modality", "seed", "params_total", "params_trained",
    "params_trained_pct", "train_seconds", "train_samples_per_s", "generate_seconds", "captions_per_s",
    "peak_memory_bytes", "device", "status", "error", "started_at", "finished_at", "config_hash", "code_version",
    "control",
)  # fmt: skip
SCORE_COLUMNS = (
    "run_id", "protocol", "metric", "value", "ci_low", "ci_high", "n", "n_failed", "n_empty", "n_truncated",
    "higher_is_better", "signature",
)  # fmt: skip
SAMPLE_COLUMNS = ("id", "modality", "reference", "caption", "status")
LEADERBOARD_COLUMNS = (  # the facts; what a protocol measures stands between the two halves, see `boards`
    "rank", "model", "class", "strategy", "prompt", "modality", "seeds", "params_trained_pct",
    "rank_low", "rank_high", "n", "captions_per_s", "peak_memory_bytes", "control",
)  # fmt: skip
BEFORE_SCORES = LEADERBOARD_COLUMNS.index("rank_low")
CAPTION_COLUMNS = (
    "similarity", "bertscore", "rouge", "bleurt", "umls_f1", "alignscore", "relevance", "factuality", "overall",
)  # fmt: skip
"""Of the study's protocols. A protocol that has some of them and no other keeps the places of all: one table reads
another's, and those of the first version stay as they are."""
BOARD_COLUMNS = ("dataset", "split", "weights", "protocol", "data")
SIGNIFICANCE_COLUMNS = (
    *BOARD_COLUMNS, "metric", "family", "row_a", "row_b", "difference", "ci_low", "ci_high", "p", "p_holm", "n",
)  # fmt: skip
AGREEMENT_COLUMNS = (*BOARD_COLUMNS, "level", "metric_a", "metric_b", "spearman", "kendall", "rows", "n")
CONTROL_COLUMNS = (
    *BOARD_COLUMNS, "control", "row", "metric", "difference", "ci_low", "ci_high", "p", "p_holm", "n",
)  # fmt: skip
SUBGROUP_COLUMNS = (*BOARD_COLUMNS, "row", "metric", "by", "group", "n", "value", "ci_low", "ci_high")
ABLATION_COLUMNS = (
    *BOARD_COLUMNS, "model", "strategy", "prompt", "modality", "metric", "by", "group", "n", "base", "value",
    "difference", "change_pct", "ci_low", "ci_high", "p", "p_holm",
)  # fmt: skip
BESIDE = {
    "significance": SIGNIFICANCE_COLUMNS,
    "agreement": AGREEMENT_COLUMNS,
    "subgroups": SUBGROUP_COLUMNS,
    "controls": CONTROL_COLUMNS,
    "ablation": ABLATION_COLUMNS,
}
"""Tables beside the leaderboard, of all boards together."""
ROW_COLUMNS = ("model", "strategy", "prompt", "modality")  # what names a row of a leaderboard
SEED = 12345  # of all resampling, as in sacrebleu: the same scores give the same intervals, everywhere
