"""The names of ablations: what replaces an activation, and where that comes from.

Belongs here: every value of the columns `mode` (of ablations) and `reference`, in words, with its
source. The same name means the same statistic in every table. Does not belong here: computing it
(references.py, replacements.py), and edits that are no ablations (interventions/kinds).

A mode says what replaces an activation, its reference which prompts and positions that is taken
from. Every mode has one reference, but for mean_leave_one_out, whose small cells fall back on
another: rows of tables say which it was.
"""

from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal[
    "zero",
    "mean_counterfactual",
    "mean_counterfactual_template",
    "mean_leave_one_out",
    "mean_batch",
    "mean_corpus",
    "resample_counterfactual",
    "resample_own",
    "counterfactual_pair",
    "uniform_attention",
]

# Position role of ablations that leave BOS alone; "all" takes it along.
ALL_BUT_BOS: Final = "all_but_bos"


@dataclass(frozen=True)
class Ablation:
    """What replaces an activation: definition, its reference, and where it is from."""

    definition: str
    reference: str
    source: str


REFERENCES: dict[str, str] = {
    "none": "nothing of another prompt is used",
    "counterfactual_cell": (
        "the counterfactual prompts (ABC, for IOI) of the same cell, position by position. A cell "
        "is a task, a template, a length and the positions of all roles"
    ),
    "counterfactual_template": "the counterfactual prompts of the same template, at END alone",
    "counterfactual_pair": "the one counterfactual prompt with the same pair_id",
    "own_cell": "the other base prompts of the same cell, position by position",
    "own_task": "the other base prompts of the same task, all positions from 1 on alike",
    "own_cell_and_task": (
        "own_cell for prompts whose cell has at least 4 prompts, own_task for the others"
    ),
    "batch_position": "all sequences of the batch, at the same position",
    "corpus_train": "the training split of the corpus, one mean over all tokens but BOS",
}

MODES: dict[Mode, Ablation] = {
    "zero": Ablation("0", "none", "Olsson et al. 2022, arXiv 2209.11895"),
    "mean_counterfactual": Ablation(
        "the mean over counterfactual prompts, its own counterfactual among them",
        "counterfactual_cell",
        "Wang et al. 2022, arXiv 2211.00593: knockouts by means over the ABC distribution",
    ),
    "mean_counterfactual_template": Ablation(
        "the mean at END over counterfactual prompts of one template, whatever their name order",
        "counterfactual_template",
        "Wang et al. 2022, section 3.4: backup heads, the movers knocked out",
    ),
    "mean_leave_one_out": Ablation(
        "the mean over the other prompts of the same task; a prompt takes no part in its own",
        "own_cell",
        "this project: mean ablation for tasks without counterfactuals",
    ),
    "mean_batch": Ablation(
        "the mean over the sequences of a batch of text, each its own among them",
        "batch_position",
        "McDougall et al. 2023, arXiv 2310.04625, section 3.3",
    ),
    "mean_corpus": Ablation(
        "one mean for every position",
        "corpus_train",
        "this project: stricter than zero, the reference of Kissane et al. 2024, arXiv 2406.17759",
    ),
    "resample_counterfactual": Ablation(
        "the activation in one counterfactual prompt other than itself, drawn by seed",
        "counterfactual_cell",
        "Chan et al. 2022, causal scrubbing",
    ),
    "resample_own": Ablation(
        "the activation in another one of the prompts that are run, drawn by seed",
        "own_cell",
        "Chan et al. 2022, causal scrubbing",
    ),
    "counterfactual_pair": Ablation(
        "the activation in the prompt's own counterfactual",
        "counterfactual_pair",
        "Wang et al. 2022, section 3.1; Geiger et al. 2021, interchange interventions",
    ),
    "uniform_attention": Ablation(
        "z under equal attention to every position up to its own, as for a query of 0",
        "none",
        "Zhou et al. 2024, arXiv 2410.13708, who scale W_Q",
    ),
}


def reference_used(mode: str, fallback_share: float | None) -> str | None:
    """Reference of an ablation of several prompts, a share of which fell back on their task.

    fallback_share is None for modes that have no other reference to fall back on.
    """
    if not fallback_share:
        return reference_of(mode)
    return "own_task" if fallback_share == 1 else "own_cell_and_task"


def reference_of(mode: str | None) -> str | None:
    """Reference of an ablation; None for what is none (an edit's mode that is not listed here)."""
    return next((one.reference for name, one in MODES.items() if name == mode), None)
