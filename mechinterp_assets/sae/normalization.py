"""Activation normalisation of SAE folders, folded into the weights.

Belongs here: the statistics that SAELens leaves beside a checkpoint's weights, and what they do to
them. Does not belong here: our own input scale (trainer.py folds it before anything is saved).

An SAE that was trained on an affine map of x, (x - m) M, is an SAE on x: with b_dec taken from the
input, W_enc becomes M W_enc, W_dec becomes W_dec M^-1, and b_dec becomes b_dec M^-1 + m. Biases and
thresholds stay. A map that differs from row to row (layer_norm) cannot be folded.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mechinterp_assets.files.regular_file import read_text
from mechinterp_assets.sae.errors import SaeError

_SCALER_BYTES = 1 << 20
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"


def fold_normalization(folder: Path, kind: str, weights: dict[str, Tensor]) -> None:
    """Make `weights`, which encode (input - b_dec), take x as it is; in place.

    kind: SAELens's normalize_activations. "none": nothing to do. "expected_average_only_in": one
    factor, from activation_scaler.json. "covariance_whitening": a mean and two matrices, from
    activation_whitening.safetensors. SAELens writes both beside the weights of a checkpoint; its
    finished SAEs are folded already and say "none". Raises SaeError for any other kind and for
    files that are missing or wrong.
    """
    if kind == "none":
        return
    if kind == "expected_average_only_in":
        scale = _scale(folder)
        weights["W_enc"] *= scale
        weights["W_dec"] /= scale
        weights["b_dec"] /= scale
        return
    if kind == "covariance_whitening":
        mean, matrix, inverse = _whitening(folder, len(weights["b_dec"]))
        weights["W_enc"] = (matrix @ weights["W_enc"].double()).float()
        weights["W_dec"] = (weights["W_dec"].double() @ inverse).float()
        weights["b_dec"] = (weights["b_dec"].double() @ inverse + mean).float()
        return
    raise SaeError(
        f"{folder} normalizes activations by {kind!r}, which differs from token to token and is no "
        "property of the weights; retrain the SAE with normalize_activations 'none' or "
        "'expected_average_only_in'"
    )


# ---- private -------------------------------------------------------------------------------------


def _scale(folder: Path) -> float:
    path = folder / SCALER
    if not path.is_file():
        raise SaeError(
            f"{folder} was trained on scaled activations, but {SCALER}, which has the factor, is "
            "not beside the weights; copy it there from the checkpoint, or use the folder that "
            "training wrote at its end"
        )
    try:
        content: Any = json.loads(read_text(path, f"the {SCALER} of an SAE", _SCALER_BYTES))
        scale = float(content["scaling_factor"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SaeError(
            f"{path} gives no number as scaling_factor ({error}); copy it again from its source"
        ) from error
    if not 0 < scale < float("inf"):
        raise SaeError(f"{path} gives the scaling_factor {scale}; it must be above 0 and finite")
    return scale


def _whitening(folder: Path, d_in: int) -> tuple[Tensor, Tensor, Tensor]:
    path = folder / WHITENING
    if not path.is_file():
        raise SaeError(
            f"{folder} was trained on whitened activations, but {WHITENING} is not beside the "
            "weights; copy it there from the checkpoint, or use the folder that training wrote at "
            "its end"
        )
    try:
        tensors = load_file(path)
    except Exception as error:
        raise SaeError(f"{path} is damaged ({error}); copy it again from its source") from error
    expected = {"mean": (d_in,), "matrix": (d_in, d_in), "inverse_matrix": (d_in, d_in)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected:
        raise SaeError(f"{path} holds tensors of shapes {shapes}, expected {expected}")
    if odd := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise SaeError(f"{', '.join(odd)} in {path} has NaN or infinity; restore the folder")
    mean, matrix, inverse = (tensors[name].double() for name in expected)
    if not torch.allclose(matrix @ inverse, torch.eye(d_in, dtype=torch.float64), atol=1e-4):
        raise SaeError(f"matrix and inverse_matrix in {path} are not inverse; restore the folder")
    return mean, matrix, inverse
