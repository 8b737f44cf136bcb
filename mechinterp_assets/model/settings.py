"""The section `model` of a study: which language model.

Belongs here: its keys and the checks that concern it alone. Does not belong here: reading a config
(shape.py), loading (language_model.py).
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from mechinterp_assets.settings.section import LocalPath, Positive, Section, Text

EMBEDDED_MODELS = {"organism": Path(__file__).resolve().parents[1] / "organism"}
_MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "*config.json", "token*", "vocab*", "merges*"),
    *("added_tokens.json", "special_tokens_map.json", "*.model"),
)


def is_model_file(name: str) -> bool:
    """Whether a file of a model folder is weights, configuration or tokenizer."""
    return any(fnmatch(name, pattern) for pattern in _MODEL_FILES)


class ModelSettings(Section):
    """Which model: exactly one of `embedded`, `path` and `hub`.

    `n_layers`, `n_heads`, `d_head` are needed for `hub`, whose config is not read at load; beside
    `path` they may be left out, and where they are given they must agree with its config.json.
    """

    embedded: Literal["organism"] | None = None
    """The model that comes with the package."""
    path: LocalPath | None = None
    """A folder that save_pretrained wrote."""
    hub: Text | None = None
    """A name on the Hugging Face hub, such as gpt2."""
    n_layers: Positive | None = None
    """Layers of the model."""
    n_heads: Positive | None = None
    """Query heads of a layer."""
    d_head: Positive | None = None
    """Width of a head."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Weights are loaded in this."""
    bos: Text = "tokenizer"
    """What sequences and prompts begin with. tokenizer: its BOS, else the config's, else EOS; none:
    nothing, the same token still stands between joined documents; any other text: that token, such
    as <|endoftext|>."""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSettings":
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
