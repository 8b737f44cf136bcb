"""SAE folders across programs: what one writes, the other reads and computes alike."""

from pathlib import Path

import pytest
import sae_lens
import torch
from sae_lens import SAE

from mechinterp_assets.sae.architectures.batchtopk import BatchTopKSAE
from mechinterp_assets.sae.architectures.gated import GatedSAE
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.architectures.matryoshka import MatryoshkaSAE
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.folder import copy_sae_folder
from mechinterp_assets.sae.io import SaeMetadata, load_sae, save_sae
from mechinterp_assets.sae.normalization import SCALER

D_IN, D_SAE = 12, 40


def _sae(name: str) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    W_enc, b_enc, W_dec, b_dec = draw(D_IN, D_SAE), draw(D_SAE), draw(D_SAE, D_IN), draw(D_IN)
    threshold = draw(D_SAE).abs()
    if name == "topk":
        return TopKSAE(W_enc, b_enc, W_dec, b_dec, k=5)
    if name == "gated":
        return GatedSAE(W_enc, b_enc, draw(D_SAE) / 4, draw(D_SAE), W_dec, b_dec)
    if name == "standard":
        return StandardSAE(W_enc, b_enc, W_dec, b_dec)
    kinds = {"jumprelu": JumpReLUSAE, "batchtopk": BatchTopKSAE, "matryoshka": MatryoshkaSAE}
    return kinds[name](W_enc, b_enc, W_dec, b_dec, threshold)


@pytest.mark.parametrize(
    "name", ["standard", "topk", "batchtopk", "jumprelu", "gated", "matryoshka"]
)
def test_a_copied_folder_of_ours_loads_in_sae_lens(tmp_path: Path, name: str) -> None:
    sae = _sae(name)
    save_sae(tmp_path / "a", sae, SaeMetadata("m", 3, 4, 3, 16, "f" * 16, "e" * 16))
    copy_sae_folder(tmp_path / "a", tmp_path / "b")
    theirs = SAE.load_from_disk(str(tmp_path / "b"))
    assert theirs.cfg.metadata.hook_name == "blocks.3.attn.hook_z"
    theirs.turn_off_forward_pass_hook_z_reshaping()
    x = torch.randn(64, D_IN)
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(theirs(x), sae(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["TopK", "BatchTopK", "JumpReLU", "Gated", "Standard"])
def test_a_checkpoint_of_theirs_with_its_scale_is_folded_as_they_fold_it(
    tmp_path: Path, kind: str
) -> None:
    """Inference weights written before the fold, with the scaler beside them, and after it."""
    torch.manual_seed(0)
    own = {"k": 5} if kind.endswith("TopK") else {}
    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(
        d_in=D_IN, d_sae=D_SAE, normalize_activations="expected_average_only_in", **own
    )
    theirs = getattr(sae_lens, f"{kind}TrainingSAE")(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if kind == "BatchTopK":
            theirs.topk_threshold.fill_(0.4)
        if kind == "JumpReLU":
            theirs.threshold.abs_()
    theirs.save_inference_model(tmp_path / "before")
    (tmp_path / "before" / SCALER).write_text('{"scaling_factor": 2.5, "has_whitening": false}')
    theirs.fold_activation_norm_scaling_factor(2.5)
    theirs.save_inference_model(tmp_path / "after")
    x = torch.randn(64, D_IN)
    before, after = load_sae(tmp_path / "before"), load_sae(tmp_path / "after")
    reference = SAE.load_from_disk(str(tmp_path / "after"))
    torch.testing.assert_close(after.encode(x), reference.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(before(x), after(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after(x), reference(x), atol=1e-5, rtol=1e-4)
