"""From an architecture's name to its classes, which its file defines.

Belongs here: importing files of `architectures/`. Does not belong here: what is known of an
architecture without importing torch (traits.py).
"""

import importlib
import inspect

from mechinterp_assets.sae import architectures
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.steps import TrainingStep
from mechinterp_assets.sae.traits import traits_of


def training_step_class(architecture: str) -> type[TrainingStep]:
    """How an architecture trains: the one TrainingStep that its file defines.

    Raises SaeError for an unknown name, and a file that defines no step or several, or whose SAE
    class has another name.
    """
    traits_of(architecture)
    module = importlib.import_module(f"{architectures.__name__}.{architecture}")
    defined = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, TrainingStep) and member.__module__ == module.__name__
    ]
    if len(defined) != 1:
        raise SaeError(
            f"{module.__file__} defines {len(defined)} subclasses of TrainingStep; the file of an "
            "architecture defines one"
        )
    step = defined[0]
    if step.sae_class.architecture != architecture:
        raise SaeError(
            f"{module.__file__}: {step.sae_class.__name__}.architecture is "
            f"{step.sae_class.architecture!r}; it must be the file's name, {architecture!r}"
        )
    return step


def sae_class(architecture: str) -> type[SparseAutoencoder]:
    """The trained form of an architecture. Errors as training_step_class."""
    return training_step_class(architecture).sae_class
