"""What a number was measured under, for a run and for a reference alike.

Belongs here: the vocabulary of conditions, those of a run, and which of a reference's a run does
not share. Does not belong here: which of them a measure depends on, and those that its SQL fixes,
which its file in sql/reproduce says; the verdict (comparison.py).
"""

from collections.abc import Callable, Mapping

import polars as pl

from mechinterp_assets.storage.declarations import SQL_FOLDER
from mechinterp_assets.studies.study import Study

STATISTIC = "statistic"
POSITION = "position"
# Said by every measure and every reference, under keys of their own.
ALWAYS = (STATISTIC, POSITION)

CONDITIONS: dict[str, str] = {
    "model": "Family and shape of the model: layers x heads x d_model",
    "bos": "What sequences and prompts begin with: a token, or none",
    "corpus": "Text: a data set's name on the hub, the name of a file or folder, or structured",
    "sae": "Architectures of the SAEs",
    "firing": "When a pair of a trace fires",
    "roots": "Where traces begin",
    "counterfactual": "Prompts that activations of a circuit's complement come from",
    "weights": "raw: as published; processed: LayerNorm folded, writing weights and W_U centred",
    "prompts": "Whose templates, names, places and objects",
    "reference": "What replaces an activation, or what a share is measured against",
    "rule": "How heads, features or edges are chosen",
}
UNSAID = "not said"
"""What a reference writes where its source does not say: no run can be known to share it."""


def run_conditions(
    study: Study, query: Callable[[str], pl.DataFrame] | None = None
) -> dict[str, str]:
    """Conditions of a study's run by name, but for those that a measure fixes.

    query: rows of a statement about the study's current tables; without it, or where a table has no
    rows, what follows from the settings alone. What is not known is left out.
    """
    found = _of_settings(study)
    if query is not None:
        for row in query(run_sql()).iter_rows(named=True):
            found |= {name: value for name, value in row.items() if value is not None}
    return found


def unshared(wanted: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """Names of the conditions in `wanted` that `own` has another value for, or none."""
    return [name for name, value in wanted.items() if value == UNSAID or own.get(name) != value]


def as_text(conditions: Mapping[str, str]) -> str:
    """Conditions in one line: `bos: none; weights: raw`."""
    return "; ".join(f"{name}: {value}" for name, value in conditions.items())


def run_sql() -> str:
    """The SQL behind run_conditions."""
    return (SQL_FOLDER / "reproduce" / "conditions" / "run.sql").read_text(encoding="utf-8")


def _of_settings(study: Study) -> dict[str, str]:
    corpus, ioi, bos = study.corpus, study.ioi, study.model.bos
    place = corpus.dataset if corpus.path is None else corpus.path.name
    attention = f"attention >= {ioi.firing_threshold:g}"
    found = {
        "corpus": place or corpus.format,
        "sae": study.sae.architecture,
        "firing": attention if ioi.trace_rule == "relative" else f"{attention}, score >= 0",
        "roots": ioi.roots if isinstance(ioi.roots, str) else "named heads",
        "counterfactual": study.circuits.counterfactual,
    }
    return found | ({} if bos == "tokenizer" else {"bos": bos})
