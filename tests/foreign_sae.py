"""An SAE of the embedded model as another program might have left it."""

import json
from pathlib import Path

import torch
from torch import Tensor

from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.activations.rows import TensorRows
from mechinterp_assets.corpora.structured import documents
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.value_offset import value_offset
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.folder import CONFIG
from mechinterp_assets.sae.io import SaeMetadata, save_sae
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.train import train

LAYER = 2


def z_of_text(model: LanguageModel) -> Tensor:
    """z of the layer [n, d_z] at generated text that no study has."""
    text = " ".join(document["text"] for document in documents(400, seed=7))
    ids = torch.tensor(model.encode(text)[: 400 * 31]).view(-1, 31)
    ids = torch.cat([torch.full((len(ids), 1), model.bos_token_id), ids], 1)
    return capture_z(model, ids, [LAYER])[LAYER][:, 1:].flatten(0, 1)


def write_foreign(folder: Path, sae: SparseAutoencoder) -> None:
    """A folder without our metadata."""
    save_sae(folder, sae, SaeMetadata("gpt2-small", LAYER, None, None, 128, None, None))
    config = json.loads((folder / CONFIG).read_text())
    del config["metadata"]["mechinterp"]
    (folder / CONFIG).write_text(json.dumps(config))


def write_residual(folder: Path, sae: SparseAutoencoder, layer: int) -> None:
    """The same for an SAE on the residual stream before a layer."""
    write_foreign(folder, sae)
    config = json.loads((folder / CONFIG).read_text())
    config["metadata"]["hook_name"] = f"blocks.{layer}.hook_resid_pre"
    (folder / CONFIG).write_text(json.dumps(config))


def foreign_folder(folder: Path, model: LanguageModel) -> None:
    """A JumpReLU SAE that was trained on z of processed weights."""
    z = z_of_text(model) - value_offset(model, LAYER)
    settings = SaeSettings(
        architecture="batchtopk",
        k=16,
        d_sae=256,
        training_tokens=60_000,
        batch_size=512,
        learning_rate=4e-3,
    )
    write_foreign(folder, train(TensorRows(z, seed=0), settings).sae)
