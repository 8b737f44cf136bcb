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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.activations import NewGELUActivation
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from mechinterp_assets.model.architecture import (
    adapter_of,
    attention_kernel,
    attention_modules,
    output_projections,
    shape_in_adapter,
)
from mechinterp_assets.model.loaded_weights import check_loaded
from mechinterp_assets.model.model_files import CONFIG, check_model_folder, check_weight_files
from mechinterp_assets.model.shape import ModelError, ModelShape, read_shape

transformers_logging.disable_progress_bar()

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")
_BESIDE_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json", "merges.txt")


@dataclass(frozen=True)
class Weights:
    """Attention, embedding and unembedding weights of one view (`raw` or `processed`).

    W_Q, W_K, W_V [layer, head, d_model, d_head]; W_O [layer, head, d_head, d_model];
    b_Q, b_K, b_V [layer, head, d_head]; b_O [layer, d_model]; W_E [d_vocab, d_model];
    W_pos [n_ctx, d_model] or None (rotary); W_U [d_model, d_vocab]; b_U [d_vocab].
    Grouped-query models: keys and values are repeated over their query group. Absent biases are 0.
    """

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor
    W_E: Tensor
    W_pos: Tensor | None
    W_U: Tensor
    b_U: Tensor


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
    ) -> None:
        self.source = source
        self.hf: Any = hf
        self.tokenizer = tokenizer
        self.device = device
        self.dtype = dtype
        self.adapter = adapter_of(self.hf.config, source)
        self.measured: dict[type, Any] = {}  # what is measured of this model once (identities.py)
        self.config = shape_in_adapter(self.adapter, self.hf.config)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "LanguageModel":
        """Load a Hugging Face folder or hub name; `eval`, no gradients, SDPA attention where it is
        what the bridge computes (architecture.py).

        A folder without tokenizer files loads with a placeholder tokenizer that has one entry per
        token id, which is enough for everything that starts from token ids.
        Raises ModelError for what is not a whole model: files that are missing, damaged or pickled,
        sizes that no model has, tensors that are missing, unexpected, of another shape or not
        finite, a tokenizer with more tokens than the model.
        """
        name = str(source)
        folder = Path(name)
        if folder.is_dir():
            check_model_folder(folder)
        try:
            hf, report = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
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
        hf = _with_fused_gelu(hf.to(device).eval().requires_grad_(False))
        tokenizer = _tokenizer(name, hf.config)
        return cls(name, hf, tokenizer, device=torch.device(device), dtype=dtype)

    # ---- views -----------------------------------------------------------------------------------

    @property
    def trunk(self) -> nn.Module:
        """The transformer without the unembedding."""
        trunk = self.hf.base_model
        assert isinstance(trunk, nn.Module)
        return trunk

    @cached_property
    def raw(self) -> TransformerBridge:
        """TransformerBridge over raw weights (its own copy, so hooks never touch the harvest)."""
        return self._bridge(processed=False)

    @cached_property
    def processed(self) -> TransformerBridge:
        """TransformerBridge over processed weights: the same probabilities, folded and centred."""
        return self._bridge(processed=True)

    @cached_property
    def weights(self) -> Weights:
        """Processed weights."""
        return _weights(self.processed, self.config)

    @cached_property
    def raw_weights(self) -> Weights:
        """Raw weights."""
        return _weights(self.raw, self.config)

    def _bridge(self, *, processed: bool) -> TransformerBridge:
        config = type(self.hf.config).from_dict(self.hf.config.to_dict())
        config._attn_implementation = "eager"
        with torch.device("cpu"):
            copy = type(self.hf)(config)
        copy.load_state_dict(self.hf.state_dict())
        copy = _with_fused_gelu(copy.to(self.device, self.dtype).eval().requires_grad_(False))
        bridge = TransformerBridge.boot_transformers(
            self.source, hf_model=copy, tokenizer=self.tokenizer, device=str(self.device)
        )
        bridge.eval()
        if processed:
            bridge.enable_compatibility_mode(disable_warnings=True)
        bridge.requires_grad_(False)
        return bridge

    # ---- modules ---------------------------------------------------------------------------------

    @cached_property
    def _output_projections(self) -> list[nn.Module]:
        return output_projections(self.hf, self.adapter, self.source)

    def output_projection(self, layer: int) -> nn.Module:
        """The module that maps z_cat [batch, position, n_heads * d_head] to attn_out."""
        if not 0 <= layer < self.config.n_layers:
            raise ModelError(
                f"layer {layer} does not exist; {self.source} has layers "
                f"0..{self.config.n_layers - 1}"
            )
        return self._output_projections[layer]

    def attention_module(self, layer: int) -> nn.Module:
        """The model's own module that computes the attention of a layer."""
        return attention_modules(self.hf, self.adapter, self.source)[layer]

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

    @property
    def bos_token_id(self) -> int:
        """Id of the token at position 0 of every sequence (GPT-2: BOS = EOS).

        Raises ModelError where there is none, or the model does not embed it.
        """
        for owner in (self.tokenizer, self.hf.config):
            for name in ("bos_token_id", "eos_token_id"):
                value = getattr(owner, name, None)
                if isinstance(value, int):
                    return _known_id(value, self.config.d_vocab, self.source)
        raise ModelError(f"{self.source} has neither a BOS nor an EOS token id in its config")

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` without any special token."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [int(i) for i in ids]

    def token_strings(self) -> list[str]:
        """Text of every token id [d_vocab]; ids beyond the tokenizer are named <id>."""
        known = len(self.tokenizer)
        return [
            self.tokenizer.decode([i]) if i < known else f"<{i}>"
            for i in range(self.config.d_vocab)
        ]

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


def _known_id(token_id: int, d_vocab: int, source: str) -> int:
    """The id of a BOS token, refused where the model does not embed it."""
    if not 0 <= token_id < d_vocab:
        raise ModelError(
            f"the BOS token of {source} has id {token_id}, but the model embeds the ids "
            f"0..{d_vocab - 1} alone; correct bos_token_id in its config.json or tokenizer"
        )
    return token_id


def _placeholder_tokenizer(name: str, config: Any) -> Any:
    """One word `<id>` per token id, for weights that come without a tokenizer."""
    bos = f"<{_known_id(config.bos_token_id or 0, config.vocab_size, name)}>"
    words = Tokenizer(WordLevel({f"<{i}>": i for i in range(config.vocab_size)}, unk_token=bos))
    words.pre_tokenizer = WhitespaceSplit()
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


def _weights(bridge: TransformerBridge, shape: ModelShape) -> Weights:
    L, H, d, dh = shape.n_layers, shape.n_heads, shape.d_model, shape.d_head
    like = bridge.W_E

    def get(name: str, size: tuple[int, ...]) -> Tensor:
        value: Tensor | None = getattr(bridge, name, None)
        if value is None:
            return torch.zeros(size, dtype=like.dtype, device=like.device)
        value = value.detach()
        if name[-1] in "KV" and value.shape[1] != H:
            value = value.repeat_interleave(H // value.shape[1], dim=1)
        if tuple(value.shape) != size:
            raise ModelError(f"weight {name} has shape {tuple(value.shape)}, expected {size}")
        return value

    return Weights(
        W_Q=get("W_Q", (L, H, d, dh)),
        W_K=get("W_K", (L, H, d, dh)),
        W_V=get("W_V", (L, H, d, dh)),
        W_O=get("W_O", (L, H, dh, d)),
        b_Q=get("b_Q", (L, H, dh)),
        b_K=get("b_K", (L, H, dh)),
        b_V=get("b_V", (L, H, dh)),
        b_O=get("b_O", (L, d)),
        W_E=get("W_E", (shape.d_vocab, d)),
        W_pos=get("W_pos", (shape.n_ctx, d)) if shape.positional == "absolute" else None,
        W_U=get("W_U", (d, shape.d_vocab)),
        b_U=get("b_U", (shape.d_vocab,)),
    )
