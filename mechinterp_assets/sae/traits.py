"""What the program must know of an SAE architecture before it trains one, read without torch.

Belongs here: the form of TRAITS, which every file of `architectures/` has, and reading it from the
file's text, as setuptools reads a version: study files are checked without importing torch. Does
not belong here: any one architecture (its file), importing it (registry.py).
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mechinterp_assets.sae import architectures
from mechinterp_assets.sae.errors import SaeError

AUXK_SETTINGS = ("auxk_coefficient", "auxk")
RESAMPLING_SETTINGS = ("resample_at", "resample_warmup_steps")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """TRAITS of an architecture, written as literals.

    description         what is active, and by which loss, in one sentence
    source              paper
    sparsity_setting    the setting that decides how sparse an SAE becomes; must be given
    required_settings   settings that must be given too, and
    optional_settings   may be given, of those that only some architectures have
    auxk                whether dead features have the aux-k loss (and its settings)
    resamples           whether dead features are resampled (with the settings of that)
    encoder_scale       the encoder starts as the decoder's transpose times this, unless given
    wide_matrices       matrices [batch_size, d_sae] alive at once at a step's peak
    sae_lens_name       what SAELens calls an SAE of this kind in cfg.json
    tensors             its tensors there: W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_dec [d_in],
                        all others [d_sae]
    """

    description: str
    source: str
    sparsity_setting: str
    required_settings: tuple[str, ...] = ()
    optional_settings: tuple[str, ...] = ()
    auxk: bool = False
    resamples: bool = False
    encoder_scale: float = 1.0
    wide_matrices: int = 3
    sae_lens_name: str
    tensors: tuple[str, ...] = ("W_enc", "b_enc", "W_dec", "b_dec")

    @property
    def needed(self) -> tuple[str, ...]:
        """Settings that must be given."""
        return self.sparsity_setting, *self.required_settings


def architecture_names() -> list[str]:
    """Every architecture there is: the files of `architectures/`, by name."""
    return sorted(_files())


def traits_of(architecture: str) -> Traits:
    """TRAITS of an architecture. Raises SaeError for an unknown name, or a file without them."""
    files = _files()
    if architecture not in files:
        raise SaeError(f"unknown SAE architecture {architecture!r}; known: {sorted(files)}")
    path = files[architecture]
    return _read(path, path.stat().st_mtime_ns)


def check_own_settings(architecture: str, given: Mapping[str, object]) -> None:
    """Raise SaeError unless an architecture has every setting it needs and none that it has not.

    given: the settings that only some architectures have, by name; None is not given.
    """
    traits = traits_of(architecture)
    has = traits.needed + traits.optional_settings
    if unknown := [name for name in has if name not in given]:
        raise SaeError(
            f"TRAITS of architecture {architecture!r} name {unknown[0]}, which is no setting of "
            f"SAEs; take one of {sorted(given)}"
        )
    for name, value in given.items():
        if value is None and name in traits.needed:
            raise SaeError(f"architecture {architecture!r} needs {name}; give it a value")
        if value is not None and name not in has:
            raise SaeError(f"architecture {architecture!r} has no {name}, got {value}; remove it")


# ---- private -------------------------------------------------------------------------------------


def _files() -> dict[str, Path]:
    """Files of architectures by name; of equal names the one that an import finds."""
    found: dict[str, Path] = {}
    for folder in architectures.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if not path.stem.startswith("_"):
                found.setdefault(path.stem, path)
    return found


@lru_cache(maxsize=256)
def _read(path: Path, modified: int) -> Traits:
    """TRAITS of a file as it was at a time."""
    body = ast.parse(path.read_text(), filename=str(path)).body
    calls = [
        node.value
        for node in body
        if isinstance(node, ast.Assign)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["TRAITS"]
    ]
    if len(calls) != 1 or not isinstance(calls[0], ast.Call) or calls[0].args:
        raise SaeError(
            f"{path} does not say TRAITS = Traits(...) once at its top level; add it, with keywords"
            " alone (sae/traits.py), or move a file that is no architecture out of the folder"
        )
    try:
        given = {str(word.arg): ast.literal_eval(word.value) for word in calls[0].keywords}
        return Traits(**given)
    except (ValueError, TypeError) as error:
        raise SaeError(
            f"TRAITS in {path} cannot be read ({error}); give every keyword of sae/traits.py: "
            "Traits that has no default, as a literal"
        ) from error
