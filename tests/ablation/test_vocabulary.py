"""The vocabulary of ablation: names are one list, tables document what they hold, cells are one."""

from pathlib import Path
from typing import get_args

import polars as pl
import pytest
import torch

from mechinterp_assets.ablation.cells import prompt_cells
from mechinterp_assets.ablation.modes import (
    ALL_BUT_BOS,
    MODES,
    REFERENCES,
    Mode,
    reference_of,
    reference_used,
)
from mechinterp_assets.ablation.references import CellMeans
from mechinterp_assets.ablation.replacements import uniform_attention
from mechinterp_assets.interventions.ablation_fields import AblationMode
from mechinterp_assets.interventions.settings import InterventionSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.common import from_ioi
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.tasks.ablation import SWEEP_MODES
from mechinterp_assets.tasks.settings import TaskEffectSettings

LEAVE_ONE_OUT = ("own_cell", "own_task", "own_cell_and_task")
# Table -> the modes and references that its rows can have.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{
        name: (get_args(AblationMode), ("none", "counterfactual_cell", "own_cell"))
        for name in ("intervention_results", "intervention_sets", "intervention_summary")
    },
    "task_head_effects": (
        ("zero", "mean_leave_one_out", "uniform_attention"),
        ("none", *LEAVE_ONE_OUT),
    ),
    "component_reuse_faithfulness": (("mean_leave_one_out",), LEAVE_ONE_OUT),
    "head_set_quality": (("mean_counterfactual",), ("counterfactual_cell",)),
    "circuit_faithfulness": (("counterfactual_pair",), ("counterfactual_pair",)),
    "circuit_faithfulness_summary": (("counterfactual_pair",), ("counterfactual_pair",)),
    "head_scores": (("mean_batch",), ("batch_position",)),
    "ioi_head_scores": (
        ("mean_counterfactual_template", "counterfactual_pair"),
        ("counterfactual_template", "counterfactual_pair"),
    ),
}


def test_registry_is_whole() -> None:
    assert set(MODES) == set(get_args(Mode))
    assert {one.reference for one in MODES.values()} <= set(REFERENCES)
    used = {reference_of(mode) for mode in MODES} | set(LEAVE_ONE_OUT)
    assert used == set(REFERENCES)
    assert set(get_args(AblationMode)) | set(SWEEP_MODES) <= set(MODES)
    definitions = [one.definition for one in MODES.values()]
    assert len(set(definitions)) == len(definitions)


@pytest.mark.parametrize("table", TABLES)
def test_tables_say_what_their_names_mean(table: str) -> None:
    comments = {column.name: column.comment for column in table_spec(table).columns}
    modes, references = TABLES[table]
    assert set(modes) <= set(MODES)
    for mode in modes:
        assert mode in comments["mode"], mode
    for reference in references:
        assert f"{reference}:" in comments["reference"] or reference == "none", reference
    assert ("none" in references) == ("none:" in comments["reference"])


def test_settings_name_modes_of_the_registry() -> None:
    """And of those that the engines run."""
    sweep = get_args(get_args(TaskEffectSettings.model_fields["ablations"].annotation)[0])
    assert sweep == TABLES["task_head_effects"][0]
    assert set(sweep) <= set(SWEEP_MODES)
    own = get_args(get_args(InterventionSettings.model_fields["head_ablations"].annotation)[0])
    assert set(own) <= set(get_args(AblationMode))


def test_fallbacks_are_told() -> None:
    assert reference_used("mean_leave_one_out", 0.0) == "own_cell"
    assert reference_used("mean_leave_one_out", 0.25) == "own_cell_and_task"
    assert reference_used("mean_leave_one_out", 1.0) == "own_task"
    assert reference_used("zero", None) == "none"
    assert reference_of("denoise") is None
    assert reference_of(None) is None
    assert ALL_BUT_BOS in str(
        {c.name: c.comment for c in table_spec("task_head_effects").columns}["position_role"]
    )


def test_a_cell_has_one_template_length_and_name_order(organism: LanguageModel) -> None:
    """Cells do not name the name order, which the positions of IO and S1 tell."""
    made = ioi_prompts(organism.encode, 64, 0, organism.bos_token_id, ("base", "ABC"))
    cells = prompt_cells(from_ioi(made))
    keys = list(zip(made["template"], made["name_order"], made["n_tokens"], strict=True))
    of_cell: dict[object, set[object]] = {}
    for cell, key in zip(cells, keys, strict=True):
        of_cell.setdefault(cell, set()).add(key)
    assert all(len(own) == 1 for own in of_cell.values())
    assert len(of_cell) > 20
    by_pair = pl.DataFrame({"pair": made["pair_id"], "cell": [str(cell) for cell in cells]})
    assert by_pair.group_by("pair").agg(pl.col("cell").n_unique())["cell"].to_list() == [1] * 64


def test_means_are_those_of_all_prompts_of_a_cell_whatever_the_batches() -> None:
    torch.manual_seed(0)
    values = [torch.randn(7, 4, 2, 3) for _ in range(2)]
    cells = ["a", "b", "a", "a", "b", "c", "a"]
    whole, parts = CellMeans(), CellMeans()
    whole.add(cells, values)
    for rows in (slice(0, 3), slice(3, 4), slice(4, 7)):
        parts.add(cells[rows], [value[rows] for value in values])
    mine = torch.tensor([cell == "a" for cell in cells])
    for layer, value in enumerate(values):
        expected = value[mine].double().mean(0)
        torch.testing.assert_close(whole.mean("a", layer), expected)
        torch.testing.assert_close(parts.of(["a", "c", "a"], layer)[2], expected)
        torch.testing.assert_close(parts.of(["a", "c", "a"], layer)[1], value[5].double())
    others = whole.of_others("a", [value[2].double() for value in values])
    torch.testing.assert_close(others[1], values[1][[0, 3, 6]].double().mean(0))
    assert whole.n == parts.n == {"a": 4, "b": 2, "c": 1}


def test_uniform_attention_is_the_mean_of_values_so_far() -> None:
    torch.manual_seed(0)
    v, z = torch.randn(2, 5, 2, 3), torch.zeros(2, 5, 4, 3)
    found = uniform_attention(v, z)
    for position in range(5):
        for head in range(4):
            expected = v[:, : position + 1, head // 2].mean(dim=1)
            torch.testing.assert_close(found[:, position, head], expected)


def test_the_methods_page_lists_the_registry() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    section = text.split("## Ablations")[1].split("\n## ")[0]
    for mode, one in MODES.items():
        assert f"| `{mode}` | {one.definition} | `{one.reference}` |" in section, mode
    for name, definition in REFERENCES.items():
        assert f"| `{name}` | {definition} |" in section, name
