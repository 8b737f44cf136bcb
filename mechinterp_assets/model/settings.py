"""The settings of the model.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from mechinterp_assets.settings.section import Positive, Section

EMBEDDED_MODELS = {"organism": Path(__file__).resolve().parents[1] / "organism"}


class ModelSection(Section):
    """Which model: exactly one of `embedded`, `path` and `hub`.

    `n_layers`, `n_heads`, `d_head` are needed for `hub`, whose config is not read at load; beside
    `path` they may be left out, and where they are given they must agree with its config.json.
    """

    embedded: Literal["organism"] | None = None
    path: Path | None = None
    hub: str | None = None
    n_layers: Positive | None = None
    n_heads: Positive | None = None
    d_head: Positive | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSection":
        given = [name for name in ("embedded", "path", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of embedded, path and hub (given: {given})")
        missing = [n for n in ("n_layers", "n_heads", "d_head") if getattr(self, n) is None]
        if self.hub is not None and missing:
            raise ValueError(
                f"a hub model's sizes are not known before it is loaded: add {missing}"
            )
        return self

    @property
    def source(self) -> str:
        """What LanguageModel.load is given."""
        if self.embedded is not None:
            return str(EMBEDDED_MODELS[self.embedded])
        return str(self.path) if self.path is not None else str(self.hub)
