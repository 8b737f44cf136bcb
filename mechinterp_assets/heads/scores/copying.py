"""Copying heads, by the eigenvalues of their OV circuits; processed weights (METHODS section 4)."""

import torch
from torch import Tensor

from mechinterp_assets.heads.embeddings import effective_embedding
from mechinterp_assets.heads.score_kinds import ModelScore, ScoreDatasets
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.language_model import LanguageModel


def copying(model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets) -> ScoreValues:
    """Re sum(lambda) / sum |lambda| over the eigenvalues of W_E W_V W_O W_U, in [-1, 1].

    The non-zero eigenvalues of the d_vocab x d_vocab matrix are those of the d_head x d_head
    matrix W_O (W_U W_E) W_V, which is what is decomposed. LayerNorm scales are left out.
    1: everything the head attends to is raised in the logits; -1: everything is suppressed
    (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", copying matrices).
    n is the number of eigenvalues, d_head. A head with all eigenvalues 0 scores 0.

    Null: a head of the same shape and spectrum that reads in random directions, Q W_V with Q a
    random d_model x d_model rotation (Haar); mean and sd over `null_draws` rotations, the same
    rotations for every head.
    """
    return _copying(model, settings, model.weights.W_E)


def copying_effective(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> ScoreValues:
    """`copying` with the effective embedding W_EE = W_E + MLP0(LN2(W_E)) in place of W_E.

    Heads of later layers read tokens after MLP0, which can turn an embedding around: copying heads
    then look like suppressing ones through W_E. The same null.
    """
    ids = torch.arange(model.config.d_vocab)
    return _copying(model, settings, effective_embedding(model, ids))


def eigenvalue_positivity(matrices: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Re sum(lambda) / sum |lambda| of square matrices [..., n, n] -> [...].

    0 where the Frobenius norm is at most `floor`, or the eigenvalues vanish beside it (nilpotent).
    """
    norm = torch.linalg.matrix_norm(matrices)
    present = norm > floor
    unit = matrices / norm.where(present, torch.ones_like(norm))[..., None, None]
    eigenvalues = torch.linalg.eigvals(unit.where(present[..., None, None], 0.0))
    size = eigenvalues.abs().sum(dim=-1)
    present = present & (size > 1e-9)
    ratio = eigenvalues.real.sum(dim=-1) / size.where(present, torch.ones_like(size))
    return torch.where(present, ratio, 0.0)


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    """Orthogonal matrix [size, size] drawn from the Haar measure (Mezzadri 2007), float64."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return torch.as_tensor(q * r.diagonal().sign())


def _copying(model: LanguageModel, settings: HeadSettings, embedding: Tensor) -> ScoreValues:
    weights = model.weights
    layers, heads, d_model, d_head = weights.W_V.shape
    token_map = (weights.W_U @ embedding).cpu().double()
    W_V = weights.W_V.stacked().cpu().double().flatten(0, 1)
    W_O = weights.W_O.stacked().cpu().double().flatten(0, 1)
    read = W_O @ token_map
    # A product far below the size of its factors is rounding error, not a matrix.
    norm = torch.linalg.matrix_norm
    floor = 1e-6 * norm(W_O) * norm(token_map) * norm(W_V)

    value = eigenvalue_positivity(read @ W_V, floor)
    generator = torch.Generator().manual_seed(settings.seed)
    draws = torch.stack(
        [
            eigenvalue_positivity(read @ (random_rotation(d_model, generator) @ W_V), floor)
            for _ in range(settings.null_draws)
        ]
    )
    shape = (layers, heads)
    return ScoreValues(
        value=value.view(shape),
        n=d_head,
        null_mean=draws.mean(dim=0).view(shape),
        null_sd=draws.std(dim=0, correction=1).view(shape),
        dataset=f"processed weights ({settings.null_draws} null draws, seed {settings.seed})",
    )


RANGE = "-1 (suppresses what it attends to) to 1 (copies it)"
NULL = (
    "The head's own W_V turned by a random rotation of d_model: a head of the same shape and "
    "spectrum that reads in random directions; mean and sd over the draws named in dataset"
)
SCORES = (
    ModelScore(
        needs=("token_weights",),
        name="copying",
        definition="Re sum(lambda) / sum |lambda| over the eigenvalues of W_E W_V W_O W_U, "
        "processed weights",
        value_range=RANGE,
        terms="eigenvalues, d_head",
        null_distribution=NULL,
        source="Elhage et al. 2021",
        threshold=0.5,
        compute=copying,
    ),
    ModelScore(
        needs=("token_weights",),
        name="copying_effective",
        definition="As copying with W_EE in place of W_E, since MLP0 can turn embeddings around "
        "before later heads read them",
        value_range=RANGE,
        terms="eigenvalues, d_head",
        null_distribution=NULL,
        source="Elhage et al. 2021; W_EE: McDougall et al. 2023, arXiv 2310.04625, section 3",
        threshold=0.5,
        compute=copying_effective,
    ),
)
