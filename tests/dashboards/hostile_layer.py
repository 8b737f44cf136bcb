"""A small layer made of random numbers, with a vocabulary that attacks the page."""

import numpy as np
import polars as pl
import torch

from mechinterp_assets.activations.cache import Batch, valid_positions
from mechinterp_assets.attribution.feature_pass import feature_pass
from mechinterp_assets.attribution.head_attribution import feature_head_attribution
from mechinterp_assets.attribution.intervals import feature_intervals
from mechinterp_assets.attribution.logit_effects import feature_logit_effects
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.provenance import Provenance
from mechinterp_assets.sae.standard import StandardSAE

LAYER = 2
N_HEADS, D_HEAD, D_SAE, LENGTH = 3, 4, 14, 40

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '" onmouseover="alert(3)',
    "' autofocus onfocus='alert(4)",
    "</style><img src=x onerror=alert(5)>",
    "<!--",
    "]]>",
    "&lt;b&gt;&#x3c;",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(6)",
    "\u202eevil\u2066",
    "שלום",
    " مرحبا",
    "\u0301",
    "\x00\x07\x1b[31m",
    "\u2028\u2029",
    "\ufeff\u200b",
    "\ud800",
    "",
    " ",
    "    ",
    "\n\n",
    "\t",
    "\r\n",
    "\u00a0",
    "`${alert(7)}`",
    "\\u003cscript\\u003e",
    "=" * 500,
    "�",
    "🙂",
]
TOKENS = ["<|endoftext|>", *HOSTILE, *(f" word{i}" for i in range(10))]


def provenance() -> Provenance:
    """Provenance whose texts attack the page as well."""
    return Provenance(
        study="a\"<b>study's", run_id="run-<i>1</i>", code_version="3", model_version="m&m"
    )


def sequences() -> pl.DataFrame:
    """Frame sequence, token_ids; every hostile token stands somewhere."""
    random = np.random.default_rng(0)
    ids = random.integers(1, len(TOKENS), (30, LENGTH))
    ids[:, 0] = 0
    ids[:, 1:][: len(HOSTILE), :3] = np.arange(1, len(HOSTILE) + 1)[:, None]
    return pl.DataFrame(
        {"sequence": np.arange(30) + 100, "token_ids": ids.astype(np.int32).tolist()}
    )


def frames(sequences: pl.DataFrame) -> LayerFrames:
    """Frames as the attribution package makes them, DFA replaced by random numbers."""
    generator = torch.Generator().manual_seed(0)
    d = N_HEADS * D_HEAD
    W_dec = torch.randn(D_SAE, d, generator=generator)
    W_dec[3] = 0  # a decoder row without heads and tokens
    b_enc = torch.full((D_SAE,), -2.0)
    b_enc[5] = -1e4  # a feature that never fires
    b_enc[6] = 4.0  # one that fires almost everywhere
    W_enc = torch.randn(d, D_SAE, generator=generator)
    sae = StandardSAE(W_enc, b_enc, W_dec, torch.zeros(d))
    ids = torch.tensor(sequences["token_ids"].to_list())
    batch = Batch(
        torch.tensor(sequences["sequence"].to_list()),
        ids,
        torch.randn(*ids.shape, d, generator=generator),
        valid_positions(ids, 0),
    )
    activations: list[pl.DataFrame] = []
    found = feature_pass([batch], sae, on_activations=activations.append, top_k=30)
    top = found.top_examples([t.encode("utf-8", "replace").decode() for t in TOKENS])
    random = np.random.default_rng(1)
    dfa = top.filter(pl.col("rank") < 10).select("feature", "rank", "sequence", "position")
    sources = [random.normal(size=p + 1).astype(np.float32) for p in dfa["position"]]
    heads = random.normal(size=(len(dfa), N_HEADS)).astype(np.float32)
    effects = feature_logit_effects(
        W_dec,
        torch.randn(N_HEADS, D_HEAD, 8, generator=generator),
        torch.randn(8, len(TOKENS), generator=generator),
        [t.encode("utf-8", "replace").decode() for t in TOKENS],
        k=len(TOKENS) // 2,
    )
    return LayerFrames(
        statistics=found.statistics(sae),
        top_examples=top,
        intervals=feature_intervals(activations, found.max_activation),
        logit_effects=effects,
        head_attribution=feature_head_attribution(W_dec, N_HEADS),
        dfa=dfa.with_columns(
            pre_activation=pl.Series([float(s.sum()) for s in sources]),
            constant=pl.lit(0.0),
            dfa_by_head=pl.Series(heads.tolist(), dtype=pl.List(pl.Float32)),
            dfa_by_source=pl.Series([s.tolist() for s in sources], dtype=pl.List(pl.Float32)),
            identity_error=pl.lit(0.0),
        ),
    )
