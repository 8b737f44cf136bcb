"""The SAE architectures by name: adding one takes its own file and one line here."""

from mechinterp_assets.sae.architectures.batchtopk import BatchTopKStep
from mechinterp_assets.sae.architectures.gated import GatedStep
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUStep
from mechinterp_assets.sae.architectures.matryoshka import MatryoshkaStep
from mechinterp_assets.sae.architectures.standard import StandardStep
from mechinterp_assets.sae.architectures.topk import TopKStep
from mechinterp_assets.sae.base import SaeError, SparseAutoencoder
from mechinterp_assets.sae.steps import TrainingStep

ARCHITECTURES: dict[str, type[TrainingStep]] = {
    "standard": StandardStep,
    "topk": TopKStep,
    "batchtopk": BatchTopKStep,
    "jumprelu": JumpReLUStep,
    "gated": GatedStep,
    "matryoshka": MatryoshkaStep,
}


def training_step_class(architecture: str) -> type[TrainingStep]:
    """How an architecture trains. Raises SaeError for an unknown name."""
    if architecture not in ARCHITECTURES:
        raise SaeError(f"unknown SAE architecture {architecture!r}; known: {sorted(ARCHITECTURES)}")
    return ARCHITECTURES[architecture]


def sae_class(architecture: str) -> type[SparseAutoencoder]:
    """The trained form of an architecture. Raises SaeError for an unknown name."""
    return training_step_class(architecture).sae_class
