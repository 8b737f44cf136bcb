"""A causal language model in the views that interpretability work needs.

Belongs here: loading from a folder or the hub, the raw and the processed weights, the module
whose input is z, and fingerprints. Does not belong here: the choice of a device
(resources/compute.py), what is computed from activations.

Two weight views exist and every stored artefact says which it used:
  raw        as published; SAEs train on and are evaluated on raw z
  processed  LayerNorm folded, writing weights and W_U centred, b_V folded into b_O
             (TransformerLens compatibility mode); Omega, tracing and logit effects use it
"""

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.activations import NewGELUActivation
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from mechinterp_assets.model.architecture import (
    LayerModules,
    adapter_of,
    attention_kernel,
    layer_modules,
    shape_in_adapter,
)
from mechinterp_assets.model.bos import FROM_TOKENIZER, Bos, resolved_bos
from mechinterp_assets.model.bridge import AnalysisBridge
from mechinterp_assets.model.left_out import excluded_ids
from mechinterp_assets.model.loaded_weights import check_loaded
from mechinterp_assets.model.model_files import CONFIG, check_model_folder, check_weight_files
from mechinterp_assets.model.placement import settle
from mechinterp_assets.model.processing import process
from mechinterp_assets.model.shape import ModelError, read_shape
from mechinterp_assets.model.sharing import has_expert_stacks, sharing_copy, unwritten
from mechinterp_assets.model.token_bytes import byte_pieces, special_ids, token_bytes
from mechinterp_assets.model.token_labels import vocabulary_labels
from mechinterp_assets.model.transformer_lens_folder import (
    is_transformer_lens_folder,
    load_transformer_lens,
)
from mechinterp_assets.model.weights import Weights

transformers_logging.disable_progress_bar()

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")
_NO_REPORT = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
_BESIDE_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json", "merges.txt")


class LanguageModel:
    """One model, loaded once, with its tokenizer, its bridges and its fingerprint."""

    def __init__(
        self,
        source: str,
        hf: nn.Module,
        tokenizer: Any,
        *,
        device: torch.device,
        dtype: torch.dtype,
        bos: str = FROM_TOKENIZER,
        exclude_tokens: Collection[str] = (),
    ) -> None:
        self.source = source
        self.hf: Any = hf
        self.tokenizer = tokenizer
        self.device = device
        self.dtype = dtype
        self.adapter = adapter_of(self.hf.config, source)
        self.measured: dict[type, Any] = {}  # what is measured of this model once (identities.py)
        self.config = shape_in_adapter(self.adapter, self.hf.config)
        self._bos_setting, self._exclude_tokens = bos, tuple(exclude_tokens)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        device_map: str | dict[str, Any] | None = None,
        bos: str = FROM_TOKENIZER,
        exclude_tokens: Collection[str] = (),
    ) -> "LanguageModel":
        """Load a Hugging Face folder or hub name; `eval`, no gradients, SDPA attention where it is
        what the bridge computes (architecture.py). A folder in TransformerLens's own format is
        loaded as the GPT-2 that it is (transformer_lens_folder.py).

        A folder without tokenizer files loads with a placeholder tokenizer that has one entry per
        token id, which is enough for everything that starts from token ids. device_map:
        accelerate's (`auto`: layers over all GPUs of this process), instead of `device`. bos: what
        sequences begin with (model/bos.py). exclude_tokens: tokens that no statistic over tokens
        counts.
        Raises ModelError for what is not a whole model: files that are missing, damaged or pickled,
        sizes that no model has, tensors that are missing, unexpected, of another shape or not
        finite, a tokenizer with more tokens than the model.
        """
        name = str(source)
        folder = Path(name)
        if folder.is_dir():
            check_model_folder(folder)
        report: dict[str, list[Any]] = {kind: [] for kind in _NO_REPORT}
        try:
            if folder.is_dir() and is_transformer_lens_folder(folder):
                hf = load_transformer_lens(folder, read_shape(folder), dtype)
            else:
                hf, report = AutoModelForCausalLM.from_pretrained(
                    name,
                    dtype=dtype,
                    device_map=device_map,
                    attn_implementation=attention_kernel(_config(name), name),
                    use_safetensors=True,
                    trust_remote_code=False,
                    ignore_mismatched_sizes=True,  # check_loaded names them all
                    output_loading_info=True,
                )
            if not folder.is_dir():  # from the hub: its files are here only now
                read_shape(name)
                check_weight_files(Path(cached_file(name, CONFIG)).parent)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"model {name!r} cannot be loaded ({type(error).__name__}: {error}); give a folder "
                "with config.json and *.safetensors as `path:`, or a hub name with network access"
            ) from error
        check_loaded(hf, name, report)
        placed = torch.device(device) if device_map is None else settle(hf, name)
        hf = hf if hasattr(hf, "hf_device_map") else hf.to(placed)
        hf = _with_fused_gelu(hf.eval().requires_grad_(False))
        tokenizer = _tokenizer(name, hf.config)
        return cls(
            name,
            hf,
            tokenizer,
            device=placed,
            dtype=dtype,
            bos=bos,
            exclude_tokens=exclude_tokens,
        )

    # ---- views -----------------------------------------------------------------------------------

    @property
    def trunk(self) -> nn.Module:
        """The transformer without the unembedding."""
        trunk = self.hf.base_model
        assert isinstance(trunk, nn.Module)
        return trunk

    @cached_property
    def raw(self) -> AnalysisBridge:
        """Bridge over raw weights: its own modules (so hooks never touch the harvest) over the
        model's tensors."""
        return self._bridge(processed=False)

    @cached_property
    def processed(self) -> AnalysisBridge:
        """Bridge over processed weights: the same probabilities, folded and centred. Tensors that
        processing leaves as they are, are the model's."""
        return self._bridge(processed=True)

    @cached_property
    def weights(self) -> Weights:
        """Processed weights."""
        return Weights(self.processed, self.config)

    @cached_property
    def raw_weights(self) -> Weights:
        """Raw weights."""
        return Weights(self.raw, self.config)

    def _bridge(self, *, processed: bool) -> AnalysisBridge:
        bridge = TransformerBridge.boot_transformers(
            self.source,
            hf_model=sharing_copy(self.hf, written=processed and has_expert_stacks(self.hf)),
            tokenizer=self.tokenizer,
            device=str(self.device),
            dtype=self.dtype,
        )
        bridge.eval()
        with unwritten(self.hf, f"weights of {self.source}"):
            if processed:
                process(bridge)
        bridge.requires_grad_(False)
        fused = self.hf.config._attn_implementation != "eager"
        return AnalysisBridge.of(bridge, self.dtype, fused=fused)

    # ---- modules ---------------------------------------------------------------------------------

    @cached_property
    def _modules(self) -> tuple[LayerModules, ...]:
        return layer_modules(self.hf, self.adapter, self.source)

    def block(self, layer: int) -> nn.Module:
        """The model's own module that is a layer."""
        return self._modules[layer].block

    def output_projection(self, layer: int) -> nn.Module:
        """The module that maps z_cat [batch, position, n_heads * d_head] to attn_out."""
        if not 0 <= layer < self.config.n_layers:
            raise ModelError(
                f"layer {layer} does not exist; {self.source} has layers "
                f"0..{self.config.n_layers - 1}"
            )
        return self._modules[layer].output_projection

    def attention_module(self, layer: int) -> nn.Module:
        """The model's own module that computes the attention of a layer."""
        return self._modules[layer].attention

    @contextmanager
    def replaced_z(self, layer: int, replace: Any) -> Iterator[None]:
        """Within the block, z_cat of `layer` is `replace(z_cat)` in every forward pass of `hf`."""

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (replace(args[0]), *args[1:])

        handle = self.output_projection(layer).register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    # ---- tokens ----------------------------------------------------------------------------------

    @cached_property
    def bos(self) -> Bos:
        """The token between documents, and at position 0 of every sequence unless the study's is
        `none` (GPT-2: BOS = EOS).

        Raises ModelError where there is none, or the model does not embed it.
        """
        return resolved_bos(
            self._bos_setting,
            self.tokenizer,
            self.hf.config,
            self.config.d_vocab,
            self.source,
        )

    @property
    def bos_token_id(self) -> int:
        """Id of `bos`, whether sequences begin with it or not."""
        return self.bos.token_id

    @property
    def first_token_id(self) -> int | None:
        """Id of the token that sequences and prompts begin with; None where that is text."""
        return self.bos.token_id if self.bos.prepended else None

    @property
    def sequence_start(self) -> str:
        """What sequences and prompts begin with, in words, for the columns that say what a number
        was measured on."""
        return f"after {self.bos_label}" if self.bos.prepended else "without BOS"

    @property
    def bos_label(self) -> str:
        """Label of `bos`, as in the table vocabulary."""
        return self._token_strings[self.bos.token_id]

    @cached_property
    def left_out_ids(self) -> tuple[int, ...]:
        """Ids that take no part in SAE training and statistics wherever they stand: BOS first.

        Raises ModelError for a name among exclude_tokens that is no token.
        """
        names, vocabulary = self._exclude_tokens, self.tokenizer.get_vocab()
        extra = excluded_ids(names, self._token_strings, vocabulary) if names else ()
        return (self.bos_token_id, *(i for i in extra if i != self.bos_token_id))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` without any special token before or behind it."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [int(i) for i in ids]

    @cached_property
    def token_bytes(self) -> list[bytes | None]:
        """Bytes of every token id [d_vocab]; None for ids that the tokenizer has no piece for."""
        return token_bytes(self.tokenizer, self.config.d_vocab)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that stand for no text."""
        return special_ids(self.tokenizer)

    @cached_property
    def ordinary_ids(self) -> list[int]:
        """Ids that the tokenizer has a piece for and that stand for text, ascending."""
        special = self.special_ids | {self.bos_token_id}
        known = enumerate(self.token_bytes)
        return [i for i, content in known if content is not None and i not in special]

    @cached_property
    def _token_strings(self) -> list[str]:
        return vocabulary_labels(self.token_bytes, byte_pieces(self.tokenizer))

    def token_strings(self) -> list[str]:
        """Label of every token id [d_vocab], all different (model/token_labels.py)."""
        return list(self._token_strings)

    # ---- fingerprints ----------------------------------------------------------------------------

    @cached_property
    def weights_hash(self) -> str:
        """sha256 over names, shapes, dtypes and bytes of all parameters, 16 hex digits."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.hf.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def tokenizer_hash(self) -> str:
        """sha256 over vocabulary, merges and special tokens, 16 hex digits."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        text = (
            backend.to_str()
            if backend is not None
            else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        )
        special = json.dumps(self.tokenizer.special_tokens_map, sort_keys=True, default=str)
        return hashlib.sha256((text + special).encode()).hexdigest()[:16]


# ---- private -------------------------------------------------------------------------------------


def _config(name: str) -> Any:
    return AutoConfig.from_pretrained(name, trust_remote_code=False)


def _tokenizer(name: str, config: Any) -> Any:
    folder, size = Path(name), config.vocab_size
    if folder.is_dir() and not any((folder / file).exists() for file in TOKENIZER_FILES):
        if left := [file for file in _BESIDE_TOKENIZERS if (folder / file).exists()]:
            raise ModelError(
                f"{folder} has {', '.join(left)} but no tokenizer (one of "
                f"{', '.join(TOKENIZER_FILES)}); copy it from the model's source, or remove what "
                "is left of it to work from token ids alone"
            )
        return _placeholder_tokenizer(name, config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"tokenizer of {name!r} cannot be loaded: {error}") from error
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ModelError(
            f"the tokenizer of {name} has ids up to {largest} ({token!r}), but the model embeds "
            f"the ids 0..{size - 1} alone; give the tokenizer that the model was trained with"
        )
    return tokenizer


def _placeholder_tokenizer(name: str, config: Any) -> Any:
    """One word `<id>` per token id, for weights that come without a tokenizer."""
    size = config.vocab_size
    bos_id = config.bos_token_id or 0
    if not 0 <= bos_id < size:
        raise ModelError(
            f"the BOS token of {name} has id {bos_id}, but the model embeds the ids 0..{size - 1} "
            "alone; correct bos_token_id in its config.json"
        )
    bos = f"<{bos_id}>"
    words = Tokenizer(WordLevel({f"<{i}>": i for i in range(size)}, unk_token=bos))
    words.pre_tokenizer = WhitespaceSplit()
    words.decoder = Fuse()  # a piece is its own text, with no space before it
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=bos, unk_token=bos
    )
    # TransformerLens loads a tokenizer again from its folder, so it must have one.
    folder = tempfile.mkdtemp(prefix="placeholder-tokenizer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _with_fused_gelu(hf: Any) -> Any:
    """GELU with tanh in one kernel: the formula that transformers computes in seven, of which each
    passes over the MLP's whole width.
    """
    for module in list(hf.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return hf
