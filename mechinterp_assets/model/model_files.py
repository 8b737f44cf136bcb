"""The files of a model folder, looked at before anything is loaded from them.

Belongs here: what config.json, the index of shards and the headers of safetensors files say, and
whether that can be a model. Does not belong here: the weights themselves (loaded_weights.py), which
sizes a model can have (shape.py).
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mechinterp_assets.files.regular_file import FileError, check_regular, read_text
from mechinterp_assets.model.shape import MAXIMUM_CONFIG_BYTES, ModelError, ModelShape, read_shape

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_READ_BY_LIBRARIES = (".json", ".safetensors", ".model", ".txt", ".jinja")
_INDEX_BYTES = 1 << 26
_FLOATS = ("F64", "F32", "F16", "BF16")
_DTYPES = ("float64", "float32", "float16", "bfloat16")
# Constants that some checkpoints store and no architecture learns.
_CONSTANT = re.compile(
    r"(^|\.)(attn|attention)\.(masked_)?bias$|rotary_emb\.(inv_freq|cos_cached|sin_cached)$"
    r"|(^|\.)position_ids$"
)
# A config may count twice what is stored once; no architecture is this far off.
_SLACK = 4


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of a tensor; dtype as safetensors writes it, such as BF16."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def check_model_folder(folder: Path) -> None:
    """Raise ModelError unless the folder's files are whole and can be one model.

    Nothing is loaded: sizes come from config.json, names and shapes from headers.
    """
    if not (folder / CONFIG).exists():
        raise ModelError(f"{folder} has no {CONFIG}; give a folder made by save_pretrained")
    try:
        for file in sorted(folder.iterdir()):
            if file.suffix in _READ_BY_LIBRARIES and not file.is_dir():
                check_regular(file, "the file that save_pretrained wrote")
    except FileError as error:
        raise ModelError(str(error)) from None
    except OSError as error:
        raise ModelError(f"{folder} is not readable ({error.strerror}); correct that") from None
    _check_dtype(folder / CONFIG)
    _check_size(folder, read_shape(folder), check_weight_files(folder))


def check_weight_files(folder: Path) -> dict[str, StoredTensor]:
    """Name -> header of every tensor of a folder's weights.

    Raises ModelError for weights that are missing, pickled, damaged or quantised, and for an index
    that does not fit its shards.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).exists():
        tensors = _header(folder / WEIGHTS)
    elif index.exists():
        tensors = _sharded(folder, _weight_map(index))
    else:
        raise ModelError(_no_weights(folder))
    odd = {
        name: tensor.dtype
        for name, tensor in tensors.items()
        if tensor.dtype not in _FLOATS and not is_constant(name)
    }
    if odd:
        raise ModelError(
            f"{folder} has weights of a dtype that is not read: "
            f"{shown(f'{name} ({dtype})' for name, dtype in odd.items())}; give them in one of "
            f"{', '.join(_FLOATS)}, not quantised"
        )
    return tensors


def is_constant(name: str) -> bool:
    """Whether a stored tensor is no weight: a causal mask, rotary frequencies, position ids."""
    return _CONSTANT.search(name) is not None


def shown(names: Iterable[str]) -> str:
    """The first three in order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


# ---- private -------------------------------------------------------------------------------------


def _json_object(file: Path, max_bytes: int) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file, "the file that save_pretrained wrote", max_bytes))
    except FileError as error:
        raise ModelError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON ({error}); copy it again from its source") from None
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no JSON object; copy it again from its source")
    return content


def _check_dtype(file: Path) -> None:
    config = _json_object(file, MAXIMUM_CONFIG_BYTES)
    for key in ("dtype", "torch_dtype"):
        dtype = config.get(key)
        if dtype is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
            raise ModelError(f"{file}: {key}: no such dtype ({dtype!r}); one of {list(_DTYPES)}")
    if config.get("quantization_config"):
        raise ModelError(
            f"{file} describes quantised weights (quantization_config); give the model's weights "
            f"in one of {list(_DTYPES)}"
        )


def _check_size(folder: Path, shape: ModelShape, tensors: Mapping[str, StoredTensor]) -> None:
    """Sizes far beyond what is stored are refused before memory is asked for them."""
    per_layer = 2 * shape.d_model * (shape.d_z + shape.d_mlp)
    positions = shape.n_ctx if shape.positional == "absolute" else 0
    described = shape.n_layers * per_layer + (shape.d_vocab + positions) * shape.d_model
    stored = sum(math.prod(tensor.shape) for tensor in tensors.values())
    if described > _SLACK * stored:
        raise ModelError(
            f"{folder / CONFIG} describes a model of more than {described:,} weights, but "
            f"{stored:,} are stored beside it; copy the folder again from its source"
        )


def _no_weights(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    pickled = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    shards = [n for n in names if n.endswith(".safetensors")]
    if pickled:
        return (
            f"{folder} has its weights as pickles alone ({shown(pickled)}), which are not read: "
            "they can run code. Convert them where you trust them: AutoModelForCausalLM."
            "from_pretrained(folder).save_pretrained(new_folder) writes *.safetensors"
        )
    if "adapter_config.json" in names:
        return f"{folder} holds an adapter, not a model; merge it into its model and save that"
    if shards:
        return (
            f"{folder} has no {WEIGHTS} and no {INDEX} for {shown(shards)}; copy the missing file "
            "from its source"
        )
    return f"{folder} has no *.safetensors; convert the weights with save_pretrained"


def _header(file: Path) -> dict[str, StoredTensor]:
    """Tensors of one file; a truncated one, or one with more than its tensors, is refused."""
    try:
        check_regular(file, "a safetensors file")
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            slices = {name: opened.get_slice(name) for name in names}
            return {
                name: StoredTensor(file.name, tensor.get_dtype(), tuple(tensor.get_shape()))
                for name, tensor in slices.items()
            }
    except Exception as error:
        raise ModelError(
            f"weight file {file} is damaged ({error}); copy it again from its source"
        ) from None


def _weight_map(index: Path) -> dict[str, str]:
    files = _json_object(index, _INDEX_BYTES).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelError(f"{index} has no weight_map; copy it again from its source")
    for name, file in files.items():
        if not isinstance(file, str) or Path(file).name != file or not file:
            raise ModelError(f"{index}: {name} is in no file of the folder ({file!r}); correct it")
    return files


def _sharded(folder: Path, files: Mapping[str, str]) -> dict[str, StoredTensor]:
    missing = {file for file in files.values() if not (folder / file).exists()}
    if missing:
        raise ModelError(
            f"{folder / INDEX} names files that are not there: {shown(missing)}; copy them from "
            "the model's source"
        )
    found: dict[str, StoredTensor] = {}
    for file in sorted(set(files.values())):
        for name, tensor in _header(folder / file).items():
            if name in found:
                raise ModelError(
                    f"{folder}: {name} is in both {found[name].file} and {file}; copy the folder "
                    "again from its source"
                )
            found[name] = tensor
    if absent := [n for n, file in files.items() if n not in found or found[n].file != file]:
        raise ModelError(
            f"{folder / INDEX} names tensors that are not in their files: {shown(absent)}; copy "
            "the folder again from its source"
        )
    return found
