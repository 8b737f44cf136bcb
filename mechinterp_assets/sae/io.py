"""SAE folders in SAELens's on-disk format, with fingerprints of what they were trained on.

Belongs here: writing, reading, compatibility checks, and the gate that a written SAE must pass
before it is published. Does not belong here: where folders live (resources/tensors.py).

A folder holds cfg.json and sae_weights.safetensors: sae_lens.SAE.load_from_disk reads ours, and
load_sae reads SAELens's for architectures whose name there is ours too, and what others wrote in
their own words (foreign_config.py). What SAELens calls an
architecture, and the names of its tensors, stand in the architecture's TRAITS; its own keys of
cfg.json in its SAE class. Fingerprints and our own name of the architecture are under
metadata.mechinterp in cfg.json; SAELens carries that key along and ignores it.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp_assets.files.regular_file import FileError, check_regular, read_text
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelShape
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.evaluation import evaluate_reconstruction
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.foreign_config import in_one_form, unread_keys
from mechinterp_assets.sae.normalization import fold_normalization
from mechinterp_assets.sae.registry import sae_class
from mechinterp_assets.sae.traits import architecture_names, traits_of

_CONFIG_BYTES = 1 << 24
# SAELens reads folders without a version >= 6 by an older route that drops keys.
SAE_LENS_VERSION = "6.54.12"
FLOATS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class SaeMetadata:
    """What an SAE was trained on.

    model_name, weights_hash, tokenizer_hash: the base model and its fingerprints (None in a folder
    that another program wrote); layer; n_heads, d_head: z's shape; context_size, prepend_bos: how
    its corpus was cut; dataset: name of the corpus; training: settings and numbers to keep.
    """

    model_name: str
    layer: int
    n_heads: int | None
    d_head: int | None
    context_size: int | None
    weights_hash: str | None
    tokenizer_hash: str | None
    dataset: str = ""
    prepend_bos: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hook_name(self) -> str:
        """TransformerLens name of the activation."""
        return f"blocks.{self.layer}.attn.hook_z"

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        layer: int,
        *,
        context_size: int,
        dataset: str = "",
        training: Mapping[str, Any] | None = None,
    ) -> "SaeMetadata":
        """Metadata of an SAE for one layer of `model`."""
        return cls(
            model_name=model.source,
            layer=layer,
            n_heads=model.config.n_heads,
            d_head=model.config.d_head,
            context_size=context_size,
            prepend_bos=model.bos.prepended,
            weights_hash=model.weights_hash,
            tokenizer_hash=model.tokenizer_hash,
            dataset=dataset,
            training=training or {},
        )


def save_sae(folder: Path, sae: SparseAutoencoder, metadata: SaeMetadata) -> None:
    """Write cfg.json and sae_weights.safetensors into `folder` (made if absent).

    Raises SaeError if z's shape in the metadata does not give the SAE's width, or for weights that
    are not float32: written as float32 they would no longer be the ones that were hashed.
    """
    for name, tensor in sae.tensors().items():
        if tensor.dtype != torch.float32:
            raise SaeError(f"{name} of the SAE is {tensor.dtype}; make its weights float32 to save")
    if metadata.n_heads is not None and metadata.d_head is not None:
        width = metadata.n_heads * metadata.d_head
        if width != sae.d_in:
            raise SaeError(
                f"the SAE has d_in {sae.d_in}, but its metadata says n_heads * d_head = {width}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.detach().cpu().contiguous() for n, t in sae.tensors().items()}
    save_file(tensors, folder / WEIGHTS)
    config: dict[str, Any] = {
        "architecture": traits_of(sae.architecture).sae_lens_name,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "hook_z",
    }
    config |= sae.folder_options()
    ours = asdict(metadata)
    config["metadata"] = {
        "sae_lens_version": SAE_LENS_VERSION,
        "sae_lens_training_version": None,
        "model_name": metadata.model_name,
        "model_class_name": "HookedTransformer",
        "hook_name": metadata.hook_name,
        "hook_head_index": None,
        "context_size": metadata.context_size,
        "prepend_bos": metadata.prepend_bos,
        "seqpos_slice": [None],
        "model_from_pretrained_kwargs": {},
        "exclude_special_tokens": True,
        "dataset_path": metadata.dataset,
        "mechinterp": {
            **ours,
            "architecture": sae.architecture,
            "sae_weights_hash": sae.weights_hash(),
        },
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2))


def load_sae(folder: Path) -> SparseAutoencoder:
    """The SAE of a folder in SAELens's format, float32, on the CPU.

    SAELens options with the same function in other weights are folded in: a TopK SAE's decoder-norm
    rescaling, b_dec not applied to the input, and a normalisation that is one map for all rows
    (normalization.py). Raises SaeError for a missing or damaged file, an unknown architecture,
    wrong shapes or dtypes, an option that cannot be folded, or weights that are not the ones the
    folder was written with.
    """
    config = _config(folder)
    architecture = str(config.get("architecture"))
    written_here = _mapping(_metadata(folder, config), "mechinterp", folder)
    ours = str(written_here.get("architecture", architecture))
    on_disk = {name: traits_of(name).sae_lens_name for name in architecture_names()}
    # another program's name must be one of ours, which then says how its tensors are read
    known = set(on_disk.values()) if written_here else {n for n in on_disk if on_disk[n] == n}
    if architecture not in known:
        raise SaeError(
            f"{folder / CONFIG} has unknown SAE architecture {architecture!r}; known on disk: "
            f"{sorted(known)}"
        )
    if ours not in on_disk:
        raise SaeError(
            f"{folder / CONFIG} has unknown SAE architecture {ours!r} under metadata.mechinterp; "
            f"known: {sorted(on_disk)}"
        )
    kind, traits = sae_class(ours), traits_of(ours)
    if traits.sae_lens_name != architecture:
        raise SaeError(
            f"{folder / CONFIG} calls the SAE {architecture!r} and, under metadata.mechinterp, "
            f"{kind.architecture!r}, which is not written so; restore the folder"
        )
    weights = _weights(folder, config, traits.tensors)
    kind.fold_options(weights, config)
    fold_normalization(folder, str(config.get("normalize_activations") or "none"), weights)
    if odd := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise SaeError(
            f"{folder}: folding its options into the weights makes {', '.join(odd)} infinite or "
            "NaN; a decoder row of zeros or a wrong factor does, so restore or retrain the SAE"
        )
    try:
        sae = kind.from_folder(weights, config)
    except SaeError as error:
        raise SaeError(f"{folder}: {error}") from error
    written = written_here.get("sae_weights_hash")
    if written is not None and written != sae.weights_hash():
        raise SaeError(
            f"weights in {folder} hash to {sae.weights_hash()}, but cfg.json was written with "
            f"{written}: the two files do not belong together; restore the folder, or write "
            "weights that were changed on purpose with save_sae"
        )
    return sae


def read_hook(folder: Path) -> str:
    """TransformerLens name of the activation that an SAE folder says it is for, "" if none."""
    return str(_metadata(folder, _config(folder)).get("hook_name", ""))


def declared(folder: Path) -> dict[str, Any]:
    """What cfg.json says an SAE is, in SAELens's keys. Raises SaeError as load_sae does."""
    return _config(folder)


def keys_not_read(folder: Path) -> list[str]:
    """Keys of the cfg.json of a foreign folder that nothing here knows."""
    content = _file_content(folder)
    ours = _mapping(_metadata(folder, content), "mechinterp", folder)
    return [] if ours else unread_keys(content)


def read_metadata(folder: Path) -> SaeMetadata:
    """Metadata of an SAE folder; fingerprints are None when another program wrote it."""
    metadata = _metadata(folder, _config(folder))
    ours = _mapping(metadata, "mechinterp", folder)
    if ours:
        names = SaeMetadata.__dataclass_fields__
        if missing := [name for name in names if name not in ours]:
            raise SaeError(
                f"{folder / CONFIG} has no {', '.join(missing)} under metadata.mechinterp; restore "
                "the folder"
            )
        if type(ours["layer"]) is not int:
            raise SaeError(f"{folder / CONFIG}: layer is {ours['layer']!r:.80}; restore the folder")
        return SaeMetadata(**{name: ours[name] for name in names})
    hook = read_hook(folder)
    parts = hook.split(".")
    if not re.fullmatch(r"blocks\.[0-9]{1,6}\.attn\.hook_z", hook):
        raise SaeError(
            f"{folder} is for hook {hook!r}; attention-output SAEs have blocks.<layer>.attn.hook_z"
        )
    return SaeMetadata(
        model_name=str(metadata.get("model_name", "")),
        layer=int(parts[1]),
        n_heads=None,
        d_head=None,
        context_size=metadata.get("context_size"),
        weights_hash=None,
        tokenizer_hash=None,
        dataset=str(metadata.get("dataset_path", "")),
        prepend_bos=bool(metadata.get("prepend_bos", True)),
    )


def check_compatible(
    metadata: SaeMetadata, shape: ModelShape, weights_hash: str, tokenizer_hash: str
) -> None:
    """Raise SaeError unless the SAE was trained on exactly this model and tokenizer.

    Compares z's shape and layer, the base model's weights fingerprint, and the tokenizer's. A
    folder without fingerprints is refused: nothing says what it was trained on.
    """
    if not 0 <= metadata.layer < shape.n_layers:
        raise SaeError(
            f"the SAE is for layer {metadata.layer}, the model has layers 0..{shape.n_layers - 1}"
        )
    if (metadata.n_heads, metadata.d_head) != (shape.n_heads, shape.d_head) and not (
        metadata.n_heads is None or metadata.d_head is None
    ):
        raise SaeError(
            f"the SAE is for z of {metadata.n_heads} heads x {metadata.d_head}, the model has "
            f"{shape.n_heads} x {shape.d_head}; load an SAE of this model"
        )
    for what, theirs, ours in (
        ("base model", metadata.weights_hash, weights_hash),
        ("tokenizer", metadata.tokenizer_hash, tokenizer_hash),
    ):
        if theirs is None:
            raise SaeError(
                f"the SAE of {metadata.model_name!r} carries no fingerprint of its {what}; save it "
                "again with save_sae and the metadata of the model it was trained on"
            )
        if theirs != ours:
            raise SaeError(
                f"the SAE was trained with another {what} ({metadata.model_name!r}, fingerprint "
                f"{theirs}), this one is {ours}; retrain it, or load the {what} it was made with"
            )


def verify_saved(folder: Path, sae: SparseAutoencoder, sample_rows: Tensor) -> dict[str, float]:
    """Reload a written SAE and require the L0 and explained variance of the one in memory.

    sample_rows [n, d_in]: activations of the layer. Returns the reloaded SAE's l0,
    explained_variance. Raises SaeError when they differ: the folder must not be published.
    """
    loaded = load_sae(folder).to(sae.W_enc.device)
    measures = {}
    before, after = (evaluate_reconstruction(s, sample_rows) for s in (sae, loaded))
    for name in ("l0", "explained_variance"):
        old, new = before[name], after[name]
        if not isinstance(old, float) or not isinstance(new, float):
            raise SaeError(f"{name} of {folder} is undefined: the sampled rows do not vary")
        # float32 weights are written as they are, so only the order of sums may differ
        if not math.isclose(old, new, rel_tol=1e-6, abs_tol=1e-9):
            raise SaeError(
                f"the SAE read back from {folder} has {name} {new}, in memory it has {old}; "
                "write it again before publishing"
            )
        measures[name] = new
    return measures


# ---- private -------------------------------------------------------------------------------------


def _config(folder: Path) -> dict[str, Any]:
    """cfg.json as SAELens 6 writes it, whoever wrote it."""
    config = _file_content(folder)
    if _mapping(_metadata(folder, config), "mechinterp", folder):
        return config
    return in_one_form(config, str(folder / CONFIG))


def _file_content(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.exists():
        raise SaeError(
            f"{folder} has no {CONFIG}; give a folder in SAELens's format{_pickled(folder)}"
        )
    try:
        config = json.loads(read_text(path, f"the {CONFIG} of an SAE", _CONFIG_BYTES))
    except FileError as error:
        raise SaeError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise SaeError(f"{path} is not JSON ({error}); restore the folder") from error
    if not isinstance(config, dict):
        raise SaeError(f"{path} does not hold a JSON object; restore the folder")
    return config


def _pickled(folder: Path) -> str:
    """What to do with a .pt file, which is never opened: reading a pickle may run what is in it."""
    near = folder if folder.is_dir() else folder.parent
    if folder.suffix != ".pt" and not any(near.glob("*.pt")):
        return ""
    return (
        ". A .pt file is a pickle, which is not opened here: convert it to safetensors where you "
        "trust it, by the command in docs/evaluation.md (SAEs of Kissane et al.)"
    )


def _metadata(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(config, "metadata", folder)


def _mapping(config: Mapping[str, Any], key: str, folder: Path) -> Mapping[str, Any]:
    """A value of cfg.json that is a JSON object, or empty where there is none."""
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise SaeError(f"{folder / CONFIG}: {key} is {value!r:.80}, not a JSON object; restore it")
    return value or {}


def _weights(folder: Path, config: dict[str, Any], names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors `names` of a folder, float32, with the shapes and dtype that cfg.json declares."""
    path = folder / WEIGHTS
    if not path.exists():
        raise SaeError(f"{folder} has no {WEIGHTS}; restore the folder{_pickled(folder)}")
    try:
        check_regular(path, "a safetensors file")
        tensors = load_file(path)
    except Exception as error:
        raise SaeError(f"{path} is damaged ({error}); copy it again from its source") from error
    d_in, d_sae = config.get("d_in"), config.get("d_sae")
    dtype = FLOATS.get(str(config.get("dtype", "float32")).removeprefix("torch."))
    if type(d_in) is not int or type(d_sae) is not int or dtype is None:
        raise SaeError(
            f"{folder / CONFIG} lacks a usable d_in ({d_in!r:.80}), d_sae ({d_sae!r:.80}) or dtype "
            f"({config.get('dtype')!r:.80}, one of {sorted(FLOATS)}); restore the folder"
        )
    wide = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    expected = {name: wide.get(name, (d_sae,)) for name in names}
    if set(tensors) != set(expected):
        raise SaeError(
            f"{path} holds {sorted(tensors)}, expected {sorted(expected)}; restore the folder"
        )
    for name, size in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != size:
            raise SaeError(
                f"{name} in {path} has shape {tuple(tensor.shape)}, cfg.json says {size}"
            )
        # SAELens keeps thresholds in float32 whatever the SAE's dtype; others keep them in theirs
        if tensor.dtype != dtype and not (name == "threshold" and tensor.dtype in FLOATS.values()):
            raise SaeError(f"{name} in {path} has dtype {tensor.dtype}, cfg.json says {dtype}")
        if not torch.isfinite(tensor).all():
            raise SaeError(f"{name} in {path} has NaN or infinity; restore or retrain the SAE")
    # a copy in this process's own memory: the file may be replaced under the map
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
