"""Logits of one prompt as frames: tokens with their probabilities, next tokens, the logit lens.

Belongs here: what is read off logits and streams through the unembedding. Does not belong here:
which parts wrote a logit (attribution/rdfa_splits.py).
"""

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import same_sum

NEXT_SCHEMA = pl.Schema(
    {
        "rank": pl.Int32(),
        "token_id": pl.Int32(),
        "token": pl.String(),
        "logit": pl.Float64(),
        "probability": pl.Float64(),
    }
)


def token_frame(token_ids: Tensor, logits: Tensor, strings: Sequence[str]) -> pl.DataFrame:
    """Tokens [position] with what logits [position, d_vocab] said of them (Exploration.tokens)."""
    n = len(token_ids)
    # In float64, as next_tokens has them, for one vocabulary at a time.
    normalizer = torch.stack([one.double().logsumexp(-1) for one in logits])
    top, top_id = logits.max(-1)
    own = logits[torch.arange(n - 1), token_ids[1:]]
    rank = (logits[:-1] > own[:, None]).sum(-1)
    ids = token_ids.tolist()
    return pl.DataFrame(
        {
            "position": range(n),
            "token_id": ids,
            "token": [strings[i] for i in ids],
            "log_probability": [None, *(own.double() - normalizer[:-1]).tolist()],
            "rank": [None, *rank.tolist()],
            "top_token_id": top_id.tolist(),
            "top_token": [strings[i] for i in top_id.tolist()],
            "top_probability": (top.double() - normalizer).exp().tolist(),
        },
        schema={
            "position": pl.Int32(),
            "token_id": pl.Int32(),
            "token": pl.String(),
            "log_probability": pl.Float64(),
            "rank": pl.Int32(),
            "top_token_id": pl.Int32(),
            "top_token": pl.String(),
            "top_probability": pl.Float64(),
        },
    )


def next_tokens(logits: Tensor, strings: Sequence[str], k: int) -> pl.DataFrame:
    """The k largest of logits [d_vocab]: frame of NEXT_SCHEMA."""
    k = min(k, len(logits))
    values, ids = logits.double().topk(k)
    chosen = ids.tolist()
    probability = logits.double().softmax(-1)[ids]
    return pl.DataFrame(
        {
            "rank": range(k),
            "token_id": chosen,
            "token": [strings[i] for i in chosen],
            "logit": values.tolist(),
            "probability": probability.tolist(),
        },
        schema=NEXT_SCHEMA,
    )


@torch.no_grad()
def logit_lens(
    model: LanguageModel, streams: Tensor, logits: Tensor, strings: Sequence[str], k: int
) -> pl.DataFrame:
    """next_tokens of every stream [layer, d_model] through final norm and unembedding, + layer.

    The last stream must give the model's own `logits` [d_vocab]; raises ExploreError.
    """
    bridge = model.raw
    x = streams[None].to(bridge.home, torch.promote_types(model.dtype, torch.float32))
    lens = bridge.through(bridge.unembed, bridge.through(bridge.ln_final, x))[0].float().cpu()
    error = float((lens[-1] - logits).abs().max())
    if not error <= same_sum(model.dtype) * (1 + float(logits.std())):
        raise ExploreError(
            f"logits of {model.source} are not its final norm and unembedding alone (off by "
            f"{error:.2g}); there is no logit lens of a model that caps or scales them"
        )
    frames = [
        next_tokens(own, strings, k).select(pl.lit(layer, pl.Int32).alias("layer"), pl.all())
        for layer, own in enumerate(lens)
    ]
    return pl.concat(frames)
