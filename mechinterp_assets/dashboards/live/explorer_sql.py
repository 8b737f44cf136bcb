"""SQL that gives what a view of the explorer shows, where tables have it.

Belongs here: which statement belongs to which question, and which prompts have tables. Does not
belong here: the statements (sql/dashboards/explorer_*.sql), answers (explorer_answers.py).

What is known of features is in tables for any prompt; numbers of a prompt are where the study names
it or it was kept, and its tables are of the SAEs that it is explored with.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mechinterp_assets.dashboards.live import explorer_questions as asked
from mechinterp_assets.dashboards.live.kept import Kept
from mechinterp_assets.dashboards.queries import filled_statement
from mechinterp_assets.storage.lake import Lake

Ids = tuple[int, ...]
Statement = dict[str, str]
"""`of`: what it gives, for people; `sql`."""

TABLES = ("prompt_tokens", "prompt_features", "prompt_head_effects", "prompt_attributions")
_PROMPTS = """
SELECT prompt_set, prompt_number, list(token_id ORDER BY position) AS token_ids
FROM prompt_tokens
WHERE study = $study
GROUP BY ALL
ORDER BY ALL
"""
_TREES = """
SELECT tree, node_kind, at_layer, at_feature, at_position, token_id
FROM prompt_attributions
WHERE study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number AND node = 0
"""
_PAIRS = """
SELECT layer, head, source
FROM prompt_pairs
WHERE study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
"""


class ExplorerSql:
    """Statements for the questions of one lake's studies; safe for threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._prompts: Kept[dict[Ids, dict[str, str | int]]] = Kept(lake, 16)

    def of(
        self,
        question: asked.OfExploration,
        token_ids: Sequence[int],
        other: Sequence[int] | None = None,
        *,
        token_id: Callable[[int | str], int],
    ) -> list[Statement]:
        """What gives (parts of) the answer to a question, none where no table has it.

        token_ids, other: of the prompt and of the second one; token_id: of a token as it is asked.
        """
        found = self._of_features(question)
        kept = self._kept(question.study, token_ids)
        if kept is None:
            return found
        last = len(token_ids) - 1
        values: dict[str, str | int] = {"study": question.study, **kept}

        def add(name: str, of: str, **more: str | int) -> None:
            found.append({"of": of, "sql": filled_statement(name, {**values, **more})})

        match question:
            case asked.Features(layer=layer):
                add("explorer_features", "activations in this prompt", layer=layer)
            case asked.Next(position=position):
                add("explorer_next", "the next token", position=position)
            case asked.Heads(layer=layer, position=position) if position == last:
                if any(row["layer"] == layer for row in self._rows(_PAIRS, values)):
                    place = {"layer": layer, "position": position}
                    add("explorer_attended", "the sources of the heads that are kept", **place)
            case asked.Slices(layer=layer, head=head, destination=position, source=source):
                pair = {"layer": layer, "head": head, "source": source}
                if position == last and pair in self._rows(_PAIRS, values):
                    add("explorer_pair", "the score and its slices", position=position, **pair)
            case asked.Parts(root=root):
                tree = self._tree(root, values, token_id)
                if tree is not None:
                    add("explorer_parts", "the tree", tree=tree)
            case asked.Logits(position=position, token=token, versus=None, by="head"):
                root = asked.LogitRoot(token=token, position=position)
                if self._tree(root, values, token_id) is not None:
                    add("explorer_logit", "the heads")
            case asked.WhatIf(position=position, edits=[edit]) if position == last:
                if _is_head_ablation(edit):
                    place = {"layer": edit["layer"], "head": edit["head"], "position": position}
                    add("explorer_ablation", "the ablation", **place)
            case asked.Difference(layer=layer, position=position, other_position=other_position):
                second = None if other is None else self._kept(question.study, other)
                if second is not None:
                    add(
                        "explorer_difference",
                        "the difference",
                        layer=layer,
                        position=position,
                        other_set=second["prompt_set"],
                        other_number=second["prompt_number"],
                        other_position=other_position,
                    )
        return found

    # ---- private ---------------------------------------------------------------------------------

    def _of_features(self, question: asked.OfExploration) -> list[Statement]:
        """What tables say of features on the corpus, whatever the prompt."""
        wanted: list[tuple[str, str]] = []
        values: dict[str, str | int] = {"study": question.study}
        if isinstance(question, asked.Features | asked.Difference):
            values["layer"] = question.layer
            wanted = [("explorer_known", "what is known of the features")]
        elif isinstance(question, asked.Dfa):
            values |= {"layer": question.layer, "feature": question.feature}
            wanted = [
                ("statistics", "the feature in the corpus"),
                ("top_examples", "its examples there, with their attribution"),
                ("heads", "its heads there: decoder share, mean direct attribution"),
                ("logit_effects", "tokens that it promotes and suppresses"),
            ]
        return [{"of": of, "sql": filled_statement(name, values)} for name, of in wanted]

    def _kept(self, study: str, token_ids: Sequence[int]) -> dict[str, str | int] | None:
        """prompt_set and prompt_number of a prompt whose tables are of today's model and SAEs."""
        return (self._prompts.get((study,), lambda: self._read(study)) or {}).get(tuple(token_ids))

    def _read(self, study: str) -> dict[Ids, dict[str, str | int]]:
        lake = self._lake
        if not all(lake.exists(table, study) for table in TABLES):
            return {}
        for name, version in lake.inputs("prompt_features", study).items():
            table, _, partition = name.partition("/")
            if lake.exists(table, partition) and lake.data_version(table, partition) != version:
                return {}
        found: dict[Ids, dict[str, str | int]] = {}
        for row in lake.sql(_PROMPTS, {"study": study}).to_dicts():
            ids = tuple(row.pop("token_ids"))
            found.setdefault(ids, row)
        return found

    def _rows(self, query: str, values: dict[str, str | int]) -> list[dict[str, Any]]:
        return self._lake.sql(query, values).to_dicts()

    def _tree(
        self,
        root: asked.FeatureRoot | asked.LogitRoot,
        values: dict[str, str | int],
        token_id: Callable[[int | str], int],
    ) -> int | None:
        """Number of the kept tree of a root; None where none was kept."""
        wanted: dict[str, Any]
        if isinstance(root, asked.FeatureRoot):
            wanted = {
                "node_kind": "feature",
                "at_layer": root.layer,
                "at_feature": root.feature,
                "at_position": root.position,
            }
        elif root.versus is not None:
            return None
        else:
            wanted = {"node_kind": "logit", "at_position": root.position}
            wanted["token_id"] = token_id(root.token)
        for row in self._rows(_TREES, values):
            if wanted.items() <= row.items():
                return int(row["tree"])
        return None


def _is_head_ablation(edit: dict[str, Any]) -> bool:
    """Whether an edit is a zero ablation of one head at all positions, as tables have it."""
    same = {"kind": "head_scaling", "alpha": 0}
    return (
        same.items() <= edit.items()
        and {"layer", "head"} <= edit.keys() <= {"kind", "alpha", "layer", "head", "position_role"}
        and edit.get("position_role", "all") == "all"
    )
