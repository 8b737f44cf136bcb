"""What every attention-output SAE is once trained.

Belongs here: the weights, encoding and decoding shared by all architectures. Does not belong here:
an architecture's activation function (one file each), training steps (steps.py and the
architecture's file), files (io.py).

Conventions: x = z_cat [n, d_in], raw weights. pre = (x - b_dec) W_enc + b_enc; f = activation(pre)
>= 0; x_hat = f W_dec + b_dec. Decoder rows have unit norm after training.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mechinterp_assets.sae.errors import SaeError


class SparseAutoencoder(ABC):
    """W_enc [d_in, d_sae], b_enc [d_sae], W_dec [d_sae, d_in], b_dec [d_in]."""

    architecture: ClassVar[str]

    def __init__(self, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> None:
        d_in, d_sae = W_enc.shape if W_enc.ndim == 2 else (-1, -1)
        shapes = {
            "W_enc": (W_enc, (d_in, d_sae)),
            "b_enc": (b_enc, (d_sae,)),
            "W_dec": (W_dec, (d_sae, d_in)),
            "b_dec": (b_dec, (d_in,)),
        }
        for name, (tensor, expected) in shapes.items():
            if tuple(tensor.shape) != expected:
                raise SaeError(
                    f"SAE tensor {name} has shape {tuple(tensor.shape)}, expected {expected} "
                    f"(W_enc is {tuple(W_enc.shape)}, [d_in, d_sae])"
                )
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = W_enc, b_enc, W_dec, b_dec

    @property
    def d_in(self) -> int:
        """Width of the activations: n_heads * d_head."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def k(self) -> int | None:
        """Active features per token where the architecture fixes it, else None."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """Every weight by its name on disk."""
        return {
            "W_enc": self.W_enc,
            "b_enc": self.b_enc,
            "W_dec": self.W_dec,
            "b_dec": self.b_dec,
        }

    def folder_options(self) -> dict[str, Any]:
        """Keys that only SAEs of this architecture have in a folder's cfg.json (io.py)."""
        return {}

    @classmethod
    def from_folder(cls, weights: dict[str, Tensor], options: Mapping[str, Any]) -> Self:
        """The SAE of a folder: `weights` by their names on disk, `options` all of its cfg.json.

        Raises SaeError for options that the architecture cannot have.
        """
        return cls(**weights)

    @classmethod
    def fold_options(cls, weights: dict[str, Tensor], options: Mapping[str, Any]) -> None:
        """Fold options of a cfg.json that other weights can express into `weights`, in place.

        b_dec that is not taken from the input: the biases change so that it may be.
        """
        if not options.get("apply_b_dec_to_input", True):
            weights["b_enc"] += weights["b_dec"] @ weights["W_enc"]

    def to(self, device: str | torch.device) -> Self:
        """Move the weights, in place."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def pre_activations(self, x: Tensor) -> Tensor:
        """(x - b_dec) W_enc + b_enc, [n, d_in] -> [n, d_sae]."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    @abstractmethod
    def activate(self, pre: Tensor) -> Tensor:
        """Feature activations from pre-activations, [n, d_sae] -> [n, d_sae], all >= 0."""

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations [n, d_sae], dense, >= 0. x [n, d_in]."""
        return self.activate(self.pre_activations(x))

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Active features of x [n, d_in]: rows, features (int64) and values, each [n_active].

        Sorted by row, within a row by feature; every value > 0.
        """
        activations = self.encode(x)
        rows, features = activations.nonzero(as_tuple=True)
        return rows, features, activations[rows, features]

    def decode(self, activations: Tensor) -> Tensor:
        """x_hat [n, d_in] from feature activations [n, d_sae]."""
        return torch.addmm(self.b_dec, activations, self.W_dec)

    def __call__(self, x: Tensor) -> Tensor:
        """x_hat = decode(encode(x)), [n, d_in] -> [n, d_in]."""
        return self.decode(self.encode(x))

    def weights_hash(self) -> str:
        """sha256 over architecture, k, and names, shapes and bytes of weights, 16 hex digits."""
        digest = hashlib.sha256(f"{self.architecture} {self.k}".encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
