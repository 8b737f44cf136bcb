"""Language models as a resource: loaded once per process, checked before use.

Belongs here: which model a study means, in which precision, and the refusal of weights or a
tokenizer that an artefact was not made with. Does not belong here: what a model is
(mechinterp_assets/model/language_model.py).
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mechinterp_assets.model.shape import ModelError
from mechinterp_assets.model.sources import model_source
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.studies.study import Study

if TYPE_CHECKING:  # imports torch
    from mechinterp_assets.model.language_model import LanguageModel


class LanguageModelResource(dg.ConfigurableResource["LanguageModelResource"]):
    """Gives the model of a study on the compute resource's device.

    root: folder of models that were fetched or converted.
    """

    root: str
    compute: dg.ResourceDependency[ComputeResource]

    def load(self, study: Study) -> "LanguageModel":
        """The study's model. Raises ModelError for damaged weights or other sizes than declared."""
        model = _load(
            model_source(study.model, Path(self.root)),
            str(self.compute.torch_device()),
            study.model.dtype,
            study.model.device_map,
            study.model.bos,
            tuple(study.activations.exclude_tokens),
        )
        for name in ("n_layers", "n_heads", "d_head"):
            declared, real = getattr(study.model, name), getattr(model.config, name)
            if declared is not None and declared != real:
                raise ModelError(
                    f"{study.file}: model.{name}: {declared} is not what {model.source} has "
                    f"({real}); correct the study"
                )
        if study.corpus.context_size > model.config.n_ctx:
            raise ModelError(
                f"{study.file}: corpus.context_size: {study.corpus.context_size} is more than the "
                f"model's {model.config.n_ctx} positions; lower it"
            )
        return model


def load_model(study: Study, models: Path) -> "LanguageModel":
    """A study's model outside a run, on this machine's device.

    models: folder of models that were fetched or converted. Raises ComputeError, ModelError.
    """
    return LanguageModelResource(root=str(models), compute=ComputeResource()).load(study)


@lru_cache(maxsize=2)
def _load(
    source: str,
    device: str,
    dtype: str,
    device_map: str,
    bos: str,
    exclude_tokens: tuple[str, ...],
) -> "LanguageModel":
    import torch

    from mechinterp_assets.model.language_model import LanguageModel

    return LanguageModel.load(
        source,
        device=device,
        dtype=getattr(torch, dtype),
        device_map=None if device_map == "none" else device_map,
        bos=bos,
        exclude_tokens=exclude_tokens,
    )
