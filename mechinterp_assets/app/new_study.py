"""A first study file for a model and a corpus, sized to both and to this machine.

Belongs here: reading sizes from a config, choosing budgets, the commented text. Does not belong
here: the command (study_commands.py), what a study file may say (studies/).

Imports neither torch nor transformers: the file is there at once.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from mechinterp_assets.app.study_schema import MODELINE, SCHEMA_FILE
from mechinterp_assets.corpora.corpus_files import corpus_format, files_in
from mechinterp_assets.corpora.skipped_rows import CorpusError
from mechinterp_assets.files.regular_file import FileError, read_text
from mechinterp_assets.model.shape import MAXIMUM_CONFIG_BYTES, shape_of
from mechinterp_assets.organism import ORGANISM_FOLDER

EXPANSION = 8  # features for each dimension of z
# Measured (docs/benchmarks.md, SAE step without compiled kernels): encoder FLOP of one core.
FLOP_PER_SECOND = 24e9
HOURS = 1.0
# Weights, gradients, two Adam moments and temporaries of encoder and decoder in float32.
BYTES_PER_WEIGHT = 24
MIN_TRAINING, MAX_TRAINING = 1_000_000, 100_000_000
MIN_CACHE, MAX_CACHE = 100_000, 2_000_000
CACHE_BYTES = 2  # bfloat16
BYTES_PER_TOKEN = 4  # of English text
PASSES = 10  # over the cache, in training


class NewStudyError(ValueError):
    """What was asked for cannot become a study file; the message says what to do."""


@dataclass(frozen=True)
class Sizes:
    """What a study needs to know of a model; `n_ctx`: longest sequence, None if not known."""

    n_layers: int
    n_heads: int
    d_head: int
    n_ctx: int | None = None

    @property
    def d_z(self) -> int:
        """Width of z: n_heads * d_head."""
        return self.n_heads * self.d_head


@dataclass(frozen=True)
class Machine:
    """What the budgets are made for."""

    cores: int
    memory_bytes: int


@dataclass(frozen=True)
class Budgets:
    """Settings chosen for a model on a machine; `hours`: of SAE training, all layers."""

    context_size: int
    corpus_tokens: int
    cache_tokens: int
    d_sae: int
    k: int
    training_tokens: int
    batch_size: int
    hours: float


def local_sizes(folder: Path) -> Sizes:
    """Sizes from a model folder's config.json. Raises NewStudyError."""
    remedy = "name a save_pretrained folder, or give --n-layers, --n-heads and --d-head"
    file = folder / "config.json"
    try:
        config = json.loads(read_text(file, "a model's config.json", MAXIMUM_CONFIG_BYTES))
        shape = shape_of(SimpleNamespace(**config))
    except FileError as error:
        raise NewStudyError(f"{error}; {remedy}") from None
    except (ValueError, TypeError, ArithmeticError, RecursionError, AttributeError) as error:
        raise NewStudyError(f"{file}: no model config ({error}); {remedy}") from None
    return Sizes(shape.n_layers, shape.n_heads, shape.d_head, shape.n_ctx)


def budgets_for(sizes: Sizes, machine: Machine, corpus_tokens: int) -> Budgets:
    """Budgets: SAEs of `EXPANSION` features a dimension, about `HOURS` of training.

    An SAE in training takes at most an eighth of the memory, the activation cache of all layers a
    quarter, so that it is read from memory. Training passes over the cached tokens, of which there
    are at most `corpus_tokens`, `PASSES` times at most.
    """
    d_sae = EXPANSION * sizes.d_z
    while d_sae > 128 and BYTES_PER_WEIGHT * 2 * sizes.d_z * d_sae > machine.memory_bytes / 8:
        d_sae //= 2
    flop = 2 * sizes.d_z * d_sae * sizes.n_layers
    rate = FLOP_PER_SECOND * machine.cores / flop
    per_token = sizes.n_layers * sizes.d_z * CACHE_BYTES
    cache = _rounded(machine.memory_bytes / 4 / per_token, MIN_CACHE, MAX_CACHE)
    training = _rounded(HOURS * 3600 * rate, MIN_TRAINING, MAX_TRAINING)
    training = min(training, _rounded(PASSES * min(cache, corpus_tokens), 50_000, MAX_TRAINING))
    return Budgets(
        context_size=min(128, sizes.n_ctx or 128),
        corpus_tokens=2 * cache,
        cache_tokens=cache,
        d_sae=d_sae,
        k=max(8, min(32, d_sae // 64)),
        training_tokens=training,
        batch_size=1024 if machine.cores < 8 else 4096,
        hours=training / rate / 3600,
    )


def study_text(
    name: str,
    model: str,
    corpus: Path,
    folder: Path,
    sizes: Sizes | None,
    machine: Machine,
) -> str:
    """The study file, to be written into `folder`.

    Args:
        name: of the study.
        model: a folder, `organism`, or a name on the hub, which needs `sizes`.
        corpus: file or folder with text.
        folder: where the file will lie; paths below it are written relative to it.
        sizes: of the model, where its config.json does not say them.
        machine: what the budgets are made for.

    Raises NewStudyError.
    """
    place, local, given = _model(model, folder, sizes)
    found = given or local_sizes(local)
    try:
        form = corpus_format(corpus)
    except CorpusError as error:
        raise NewStudyError(str(error)) from None
    tokens = sum(file.stat().st_size for file in files_in(corpus)) // BYTES_PER_TOKEN
    budgets = budgets_for(found, machine, tokens)
    lines = [f"  {key}: {value}" for key, value in place.items()]
    if given is not None:
        lines += [f"  {key}: {getattr(given, key)}" for key in ("n_layers", "n_heads", "d_head")]
    memory = f"{machine.memory_bytes / 2**30:.0f} GiB"
    cache = budgets.cache_tokens * found.n_layers * found.d_z * CACHE_BYTES / 2**30
    return f"""\
{MODELINE}{SCHEMA_FILE}
# Sized to {machine.cores} cores and {memory} of memory: raise the budgets on a larger machine.
# docs/studies.md explains every section; what is left out has a default.
study: {name}
description: {_quoted(f"{Path(model).name} on {corpus.name}")}
model: # {found.n_layers} layers of {found.n_heads} heads, d_head {found.d_head}
{chr(10).join(lines)}
corpus:
  format: {form} # about {tokens:,} tokens, by its size
  path: {_quoted(_place(corpus, folder))}
  max_tokens: {budgets.corpus_tokens}
  context_size: {budgets.context_size}
  held_out_fraction: 0.1
activations: # the cache: up to {cache:.1f} GiB on disk
  layers: all # or [0, 1]: fewer layers take less of everything
  max_tokens: {budgets.cache_tokens}
sae: # one for each layer; together about {_time(budgets.hours)} of training on these cores
  architecture: topk
  d_sae: {budgets.d_sae}
  k: {budgets.k}
  training_tokens: {budgets.training_tokens}
  batch_size: {budgets.batch_size}
checks: # what blocks everything that reads the SAEs
  l0: [1, {2 * budgets.k}]
  ce_recovered_min: 0.5
"""


# ---- private -------------------------------------------------------------------------------------


def _model(
    model: str, folder: Path, sizes: Sizes | None
) -> tuple[dict[str, str], Path, Sizes | None]:
    """Key and value of the section `model`, the local folder, and sizes to be written down."""
    local = Path(os.path.expanduser(model))
    if model == "organism" and not local.exists():
        return {"embedded": "organism"}, ORGANISM_FOLDER, sizes
    if local.is_dir():
        return {"path": _quoted(_place(local, folder))}, local, sizes
    if local.exists() or local.is_absolute() or model.startswith((".", "~")):
        raise NewStudyError(f"model {model} is no folder; name a save_pretrained folder")
    if sizes is None:
        raise NewStudyError(
            f"{model!r} is no folder, so it is taken for a name on the hub, whose sizes are not "
            "known before it is loaded: give --n-layers, --n-heads and --d-head"
        )
    return {"hub": _quoted(model)}, local, sizes


def _place(path: Path, folder: Path) -> str:
    """A path as the study file says it: relative where it lies below the file's folder."""
    place, base = path.absolute(), folder.absolute()
    text = str(place.relative_to(base)) if place.is_relative_to(base) else str(place)
    if os.path.expandvars(os.path.expanduser(text)) != text or not text.isprintable():
        raise NewStudyError(
            f"{text!r} has a character in its name that a study file reads otherwise; rename it"
        )
    return text


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"


def _quoted(text: str) -> str:
    """A text as YAML: JSON's quotes."""
    return json.dumps(text, ensure_ascii=False)


def _rounded(value: float, least: int, most: int) -> int:
    """Two digits, rounded down, within bounds."""
    step = 10 ** max(0, len(str(int(value))) - 2)
    return int(min(most, max(least, value // step * step)))
