"""Modules of their own over the tensors of another model.

Belongs here: the copy that a bridge is built around, and the watch over what both hold. Does not
belong here: what a bridge is.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from mechinterp_assets.model.shape import ModelError


def sharing_copy(hf: Any, *, written: bool = False) -> Any:
    """The same modules once more, over the same storage: hooks, attention and parameters that are
    set on one never reach the other. written: over tensors of its own, for what is written into.

    Ties stay ties. Buffers keep their own precision: rotary frequencies are float32 in a 16-bit
    model, and in a module that is made anew and cast they would be rounded, which at 1,024
    positions moves bfloat16 attention by 5 to 17%.
    """
    memo: dict[int, Any] = {}
    if not written:
        for parameter in hf.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in hf.buffers():
            memo[id(buffer)] = buffer
    return copy.deepcopy(hf, memo)


def has_expert_stacks(hf: Any) -> bool:
    """Whether experts are stored as one tensor, which TransformerLens folds norms into in place."""
    return any(parameter.ndim > 2 for parameter in hf.parameters())


@contextmanager
def unwritten(hf: Any, what: str) -> Iterator[None]:
    """Raises ModelError where the block wrote into a parameter of `hf` in place."""
    before = {name: parameter._version for name, parameter in hf.named_parameters()}
    yield
    after = {name: parameter._version for name, parameter in hf.named_parameters()}
    if changed := [name for name in before if after[name] != before[name]]:
        raise ModelError(
            f"processing would change the {what} themselves ({', '.join(changed[:3])}); raw and "
            "processed weights of this architecture cannot be told apart"
        )
