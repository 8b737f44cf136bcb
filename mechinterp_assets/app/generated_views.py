"""SQL views that say what files of the packages declare: scores of heads, SAE architectures.

Belongs here: their text. Each definition stands once, in the file of its score or architecture;
these views pass it on to whoever asks in SQL. After a change of such a file write them anew with
`python -m mechinterp_assets.app.generated_views`; a test compares. Does not belong here: views
written by hand (sql/views).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mechinterp_assets.heads.score_kinds import MoverScore
from mechinterp_assets.heads.score_registry import KINDS_OF_TABLE, all_scores, scores_in
from mechinterp_assets.sae.traits import architecture_names, traits_of
from mechinterp_assets.storage.declarations import SQL_FOLDER
from mechinterp_assets.storage.sql_text import quote_text

MARK = "-- Written by mechinterp_assets/app/generated_views.py from {source}; do not edit.\n"
Value = str | float | None


def generated_views() -> dict[str, str]:
    """SQL of every generated view, by name."""
    return {
        "head_score_definitions": _head_score_definitions(),
        "head_score_matrix": _head_score_matrix(),
        "sae_architectures": _sae_architectures(),
    }


def write_views(folder: Path = SQL_FOLDER / "views") -> list[Path]:
    """Write them as files; gives those that changed."""
    changed = []
    for name, text in generated_views().items():
        path = folder / f"{name}.sql"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(path)
    return changed


# ---- private -------------------------------------------------------------------------------------


def _head_score_definitions() -> str:
    rows = [
        (
            score.name,
            table,
            score.definition,
            score.value_range,
            score.terms,
            score.null_distribution,
            score.threshold,
            score.threshold_share if isinstance(score, MoverScore) else None,
            score.source,
        )
        for table in KINDS_OF_TABLE
        for score in scores_in(table)
    ]
    columns = {
        "score": "Name of the score",
        "table_name": (
            "Table with its rows: head_scores, or ioi_head_scores for scores that need IOI prompts"
        ),
        "definition": (
            "What is computed. A = attention probabilities [destination i, source j]; RRT = BOS "
            "+ random distinct tokens, repeated once; BOS (position 0) is left out as "
            "destination and source unless the definition names it; W_EE = W_E + MLP0(LN2(W_E)), "
            "the embedding that later heads read; END, IO, S1, S2 = positions of an IOI prompt"
        ),
        "value_range": "Between which values a score lies, or its unit",
        "terms": "What the column n of the scores counts",
        "null_distribution": "Null behind null_mean and null_sd, and whether its moments are exact",
        "value_threshold": (
            "Value above which a head meets the condition that the score stands for in "
            "head_role_conditions; NULL: it stands for none, or threshold_share says it"
        ),
        "threshold_share": (
            "The same as a share of the mean logit difference IO - S of the untouched model; "
            "NULL unless the threshold is such a share"
        ),
        "paper": "Where the score is from, and whether its threshold is",
    }
    return _values_view(
        "head_score_definitions",
        "One row per score of head_scores and ioi_head_scores: its definition.",
        "the files of mechinterp_assets/heads/scores",
        columns,
        rows,
    )


def _sae_architectures() -> str:
    rows = []
    for name in architecture_names():
        traits = traits_of(name)
        revived = "aux-k" if traits.auxk else "resampling" if traits.resamples else None
        rows.append(
            (
                name,
                traits.description,
                traits.sparsity_setting,
                ", ".join(traits.required_settings) or None,
                revived,
                traits.sae_lens_name,
                traits.source,
            )
        )
    columns = {
        "architecture": "Name of the SAE architecture, as in attention_sae",
        "definition": "Which features are active, and the loss; decoder rows have unit norm",
        "sparsity_setting": "Setting that decides how sparse the SAE becomes",
        "required_settings": "Other settings that must be given; NULL: none",
        "dead_features": (
            "How features that never fire get a gradient: aux-k (Gao et al. 2024, A.2) or "
            "resampling (Bricken et al. 2023); NULL: not at all"
        ),
        "sae_lens_name": "What SAELens calls such an SAE in cfg.json",
        "paper": "Where the architecture is from",
    }
    return _values_view(
        "sae_architectures",
        "One row per SAE architecture that can be trained: its definition.",
        "the files of mechinterp_assets/sae/architectures",
        columns,
        rows,
    )


def _head_score_matrix() -> str:
    scores = all_scores()
    pivots = "".join(
        f"    any_value(value) FILTER (WHERE score = '{score.name}') AS {score.name},\n"
        for score in scores
    )
    comments = {
        "study": "Study the row belongs to",
        "layer": "Layer of the head, from 0",
        "head": "Head within its layer, from 0",
        **{score.name: f"Score {score.name}. {score.definition}" for score in scores},
        "roles_of_head": "Roles of the head, as in head_roles; NULL where it has none",
    }
    return (
        MARK.format(source="the files of mechinterp_assets/heads/scores")
        + "CREATE VIEW head_score_matrix AS\n"
        "WITH roles AS (\n"
        "    SELECT study, layer, head, list(role ORDER BY role) AS roles\n"
        "    FROM head_roles\n"
        "    GROUP BY study, layer, head\n"
        ")\n"
        f"SELECT\n    study,\n    layer,\n    head,\n{pivots}"
        "    any_value(roles.roles) AS roles_of_head\n"
        "FROM head_score_tests\n"
        "LEFT JOIN roles USING (study, layer, head)\n"
        "GROUP BY study, layer, head;\n"
        + _comments(
            "head_score_matrix",
            "One row per head with a column per score of head_scores and ioi_head_scores, for "
            "sorting and plotting heads. A score that a head does not have is NULL.",
            comments,
        )
    )


def _values_view(
    name: str,
    comment: str,
    source: str,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[Value]],
) -> str:
    """A view over literal rows, with its comments."""
    listed = ", ".join(columns)
    values = ",\n".join(f"        ({', '.join(_literal(value) for value in row)})" for row in rows)
    return (
        f"{MARK.format(source=source)}CREATE VIEW {name} AS\nSELECT {listed}\nFROM (\n    VALUES\n"
        f"{values}\n) AS declared ({listed});\n" + _comments(name, comment, columns)
    )


def _literal(value: Value) -> str:
    if value is None:
        return "NULL"
    return quote_text(value) if isinstance(value, str) else f"{value:g}::DOUBLE"


def _comments(view: str, comment: str, columns: Mapping[str, str]) -> str:
    lines = [f"COMMENT ON VIEW {view} IS {quote_text(comment)};"]
    lines += [
        f"COMMENT ON COLUMN {view}.{name} IS {quote_text(text)};" for name, text in columns.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for written in write_views():
        print(written)
