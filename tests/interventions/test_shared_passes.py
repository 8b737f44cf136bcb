"""Which part of the model an intervention's run computes."""

from typing import Any

import polars as pl
import pytest
import torch

from mechinterp_assets.interventions import runner
from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.kinds.activation_patching import patching_sweep
from mechinterp_assets.interventions.kinds.head_ablation import head_ablations
from mechinterp_assets.interventions.prompts import ROLE_COLUMNS
from mechinterp_assets.model.language_model import LanguageModel
from tests.model.computed_positions import positions_computed


@pytest.mark.parametrize("role", ["END", "S2", "IO", "all_but_bos", "all"])
def test_only_what_an_edit_reaches_is_computed(
    busy: LanguageModel, ioi: pl.DataFrame, base: pl.DataFrame, role: str
) -> None:
    n_layers, n_heads = busy.config.n_layers, busy.config.n_heads
    planned = head_ablations(n_layers, n_heads, modes=("zero",), position_roles=(role,))
    prompts = base.head(1)  # several prompts start together, where the first of them does
    run(busy, prompts, planned)  # the model is asked what it can
    with positions_computed(busy) as counts:
        run(busy, prompts, planned)
    length = int(prompts["n_tokens"][0])
    first = {"all": 0, "all_but_bos": 1}.get(role)
    first = int(prompts[ROLE_COLUMNS[role]][0]) if first is None else first
    assert counts == [
        length + (layer + 1) * n_heads * (length - first) for layer in range(n_layers)
    ]


def test_edits_of_all_layers_share_one_pass(
    busy: LanguageModel, ioi: pl.DataFrame, base: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as fit into batch_rows; in the order of their layers whatever the plan's order."""
    entered: list[list[int]] = []
    right = runner.run_entering

    def seen(bridge: Any, entering: dict[int, torch.Tensor], *rest: Any, **more: Any) -> Any:
        entered.append(list(entering))
        return right(bridge, entering, *rest, **more)

    monkeypatch.setattr(runner, "run_entering", seen)
    planned = patching_sweep(
        busy.config.n_layers, 8, mode="noise", source_variant="ABC", position_roles=("END",)
    )
    one = ioi.filter(pair_id=base["pair_id"][0])
    forth, back = run(busy, one, planned), run(busy, one, planned[::-1])
    assert entered == [[0, 1, 2, 3, 4]] * 2
    by = ["intervention", "metric", "prompt"]
    assert forth.sort(by).equals(back.sort(by))
    assert (forth["patched"] - forth["clean"]).abs().max() > 0.01
    few = run(busy, one, planned, batch_rows=4)
    for name in ("patched", "cosine", "norm_ratio"):
        torch.testing.assert_close(
            torch.tensor(few[name].to_list()),
            torch.tensor(forth[name].to_list()),
            rtol=1e-4,
            atol=1e-4,
        )
