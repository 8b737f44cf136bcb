"""sae_evaluation against sae-lens's run_evals: the same SAE, model and tokens.

Where definitions are the same, numbers must be; where they differ (docs/evaluation.md), the
difference is accounted for exactly.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sae_lens import SAE, ActivationsStore
from sae_lens.evals import get_eval_everything_config, get_recons_loss, run_evals
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_layers
from mechinterp_assets.sae.io import SaeMetadata, save_sae

LAYER = 2
TOLERANCE = 1e-3
BATCH = 8


@pytest.fixture(scope="module")
def rows(organism: LanguageModel, peer_token_ids: Tensor) -> Tensor:
    valid = valid_positions(peer_token_ids, organism.bos_token_id)
    return capture_z(organism, peer_token_ids, [LAYER])[LAYER][valid]


def _saes(rows: Tensor) -> dict[str, SparseAutoencoder]:
    """SAEs that reconstruct well enough to matter: features in the directions of data rows."""
    mean = rows.mean(0)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:384]
    W_dec = rows[chosen] - mean
    W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
    spread = (rows - mean).norm(dim=1).median()
    standard = StandardSAE(
        W_dec.T.contiguous() / 2, torch.full((384,), -0.2 * float(spread)), W_dec, mean
    )
    topk = TopKSAE(W_dec.T.contiguous() / 3, torch.zeros(384), W_dec, mean, k=12)
    return {"standard": standard, "topk": topk}


def _run_evals(
    sae: SparseAutoencoder, model: LanguageModel, ids: Tensor, folder: Path
) -> tuple[dict[str, float], dict[str, Any], Any]:
    save_sae(folder, sae, SaeMetadata.of(model, LAYER, context_size=ids.shape[1]))
    theirs = SAE.load_from_disk(str(folder))
    store = ActivationsStore.from_sae(
        model=model.raw,
        sae=theirs,
        dataset=Dataset.from_dict({"tokens": ids.tolist()}),
        streaming=False,
        store_batch_size_prompts=BATCH,
        total_tokens=1,
    )
    batches = len(ids) // BATCH
    config = get_eval_everything_config(BATCH, batches, batches)
    metrics, features = run_evals(theirs, store, model.raw, ActivationScaler(), config)
    flat = {name: value for group in metrics.values() for name, value in group.items()}
    return flat, features, theirs


@pytest.mark.parametrize("name", ["standard", "topk"])
def test_measures_agree_with_run_evals(
    organism: LanguageModel, peer_token_ids: Tensor, rows: Tensor, tmp_path: Path, name: str
) -> None:
    sae = _saes(rows)[name]
    frame = evaluate_layers(organism, {LAYER: sae}, peer_token_ids, {LAYER: rows.mean(0)})
    ours = frame.row(0, named=True)
    theirs, features, _ = _run_evals(sae, organism, peer_token_ids, tmp_path / "sae")

    same = {
        "l0": theirs["l0"],
        "reconstruction_cosine": theirs["cossim"],
        "shrinkage": theirs["l2_ratio"],
        "ce_clean": theirs["ce_loss_without_sae"],
        "ce_spliced": theirs["ce_loss_with_sae"],
        "kl": theirs["kl_div_with_sae"],
        # theirs calls R^2 explained variance: it counts a constant error, ours is in fvu
        "fvu": 1 - theirs["explained_variance"],
        # theirs sums over dimensions
        "mse": theirs["mse"] / sae.d_in,
        "dead_fraction": sum(d == 0 for d in features["feature_density"]) / sae.d_sae,
    }
    for column, value in same.items():
        print(f"{name:9} {column:14} ours {ours[column]:.6f} sae-lens {value:.6f}")
    for column, value in same.items():
        assert ours[column] == pytest.approx(value, rel=TOLERANCE), column
    assert ours["kl"] > 0.01, "the splice must matter for the comparison to say something"
    density = torch.tensor(features["feature_density"])
    assert sum(ours["density_counts"]) == int((density > 0).sum())
    mean_density = float(density.double().mean()) * sae.d_sae
    assert ours["l0"] == pytest.approx(mean_density, rel=TOLERANCE)


def test_zero_ablation_differs_only_at_bos(
    organism: LanguageModel, peer_token_ids: Tensor, rows: Tensor, tmp_path: Path
) -> None:
    """run_evals sets z to 0 at BOS too, where its splice leaves z alone. A zero SAE, which it
    splices in at the other positions, gives our ce_zero and kl_zero.
    """
    d = organism.config.d_z
    zero = StandardSAE(torch.zeros(d, 4), torch.zeros(4), torch.zeros(4, d), torch.zeros(d))
    frame = evaluate_layers(organism, {LAYER: zero}, peer_token_ids, {LAYER: rows.mean(0)})
    ours = frame.row(0, named=True)
    theirs, _, _ = _run_evals(zero, organism, peer_token_ids, tmp_path / "zero")
    assert ours["ce_zero"] == pytest.approx(theirs["ce_loss_with_sae"], rel=TOLERANCE)
    assert ours["kl_zero"] == pytest.approx(theirs["kl_div_with_sae"], rel=TOLERANCE)
    print(f"zero at all but BOS {ours['ce_zero']:.6f}, with BOS {theirs['ce_loss_with_ablation']}")

    everywhere = _zeroed_everywhere(organism, peer_token_ids)
    assert everywhere == pytest.approx(theirs["ce_loss_with_ablation"], rel=TOLERANCE)


def test_scores_are_the_same_function_of_the_losses(
    organism: LanguageModel, peer_token_ids: Tensor, rows: Tensor, tmp_path: Path
) -> None:
    sae = _saes(rows)["topk"]
    frame = evaluate_layers(organism, {LAYER: sae}, peer_token_ids, {LAYER: rows.mean(0)})
    ours = frame.row(0, named=True)
    theirs, _, _ = _run_evals(sae, organism, peer_token_ids, tmp_path / "sae")
    ours_with_their_zero = (theirs["ce_loss_with_ablation"] - ours["ce_spliced"]) / (
        theirs["ce_loss_with_ablation"] - ours["ce_clean"]
    )
    assert ours_with_their_zero == pytest.approx(theirs["ce_loss_score"], abs=TOLERANCE)
    kl_score = 1 - ours["kl"] / theirs["kl_div_with_ablation"]
    assert kl_score == pytest.approx(theirs["kl_div_score"], abs=TOLERANCE)
    print(
        f"ce_recovered ours {ours['ce_recovered']:.4f}, sae-lens {theirs['ce_loss_score']:.4f}; "
        f"kl_recovered ours {ours['kl_recovered']:.4f}, sae-lens {theirs['kl_div_score']:.4f}"
    )


def test_losses_of_single_tokens_agree(
    organism: LanguageModel, peer_token_ids: Tensor, rows: Tensor, tmp_path: Path
) -> None:
    """The splice itself, one batch, position by position."""
    sae = _saes(rows)["standard"]
    ids = peer_token_ids[:2]
    ours = evaluate_layers(organism, {LAYER: sae}, ids, {LAYER: rows.mean(0)}).row(0, named=True)
    save_sae(tmp_path, sae, SaeMetadata.of(organism, LAYER, context_size=64))
    theirs = SAE.load_from_disk(str(tmp_path))
    theirs.turn_off_forward_pass_hook_z_reshaping()
    losses = get_recons_loss(
        theirs,
        organism.raw,
        ActivationScaler(),
        ids,
        compute_kl=True,
        compute_ce_loss=True,
        ignore_tokens=[organism.bos_token_id],
    )
    valid = valid_positions(ids, organism.bos_token_id)
    ce = losses["ce_loss_with_sae"][valid[:, :-1]].mean()
    assert ours["ce_spliced"] == pytest.approx(float(ce), rel=1e-5)
    kl = losses["kl_div_with_sae"][valid].mean()
    assert ours["kl"] == pytest.approx(float(kl), rel=1e-4)


def _zeroed_everywhere(model: LanguageModel, ids: Tensor) -> float:
    with torch.no_grad(), model.replaced_z(LAYER, torch.zeros_like):
        log_p = model.hf(input_ids=ids).logits.double().log_softmax(-1)
    valid = valid_positions(ids, model.bos_token_id)[:, :-1]
    nll = -log_p[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    return float(nll[valid].mean())
