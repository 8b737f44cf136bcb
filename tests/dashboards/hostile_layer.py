"""A small layer made of random numbers, with a vocabulary that attacks the page."""

import numpy as np
import polars as pl
import torch

from mechinterp_assets.activations.cache import Batch, valid_positions
from mechinterp_assets.attribution.activation_stream import TokenGrid
from mechinterp_assets.attribution.feature_pass import feature_pass
from mechinterp_assets.attribution.head_attribution import feature_head_attribution
from mechinterp_assets.attribution.intervals import interval_tables, with_tokens
from mechinterp_assets.attribution.logit_effects import feature_logit_effects
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.storage.provenance import Provenance

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
ATTACK = "<img src=x onerror=alert(9)>"
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
    """Frames as the feature packages make them; DFA, relations and meanings are random numbers.

    Every text that a user or a vocabulary can put into a table attacks the page.
    """
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
    texts = [t.encode("utf-8", "replace").decode() for t in TOKENS]
    top = found.top_examples(texts)
    random = np.random.default_rng(1)
    dfa = top.filter(pl.col("rank") < 10).select("feature", "rank", "sequence", "position")
    matrices = [random.normal(size=(N_HEADS, p + 1)).astype(np.float32) for p in dfa["position"]]
    sources = [matrix.sum(axis=0) for matrix in matrices]
    heads = np.array([matrix.sum(axis=1) for matrix in matrices])
    effects = feature_logit_effects(
        W_dec,
        torch.randn(N_HEADS, D_HEAD, 8, generator=generator),
        torch.randn(8, len(TOKENS), generator=generator),
        texts,
        k=len(TOKENS) // 2,
    )
    tables = interval_tables(activations, found.max_activation, n_top=2, n_random=3)
    grid = TokenGrid.of(batch.sequence, ids, batch.valid, found.n_tokens)
    return LayerFrames(
        statistics=found.statistics(sae),
        top_examples=top,
        intervals=tables.intervals,
        interval_examples=with_tokens(tables.examples, grid, texts),
        logit_effects=effects,
        head_attribution=feature_head_attribution(W_dec, N_HEADS),
        dfa=dfa.with_columns(
            pre_activation=pl.Series([float(s.sum()) for s in sources]),
            constant=pl.lit(0.0),
            dfa_by_head=pl.Series(heads.tolist(), dtype=pl.List(pl.Float32)),
            dfa_by_source=pl.Series([s.tolist() for s in sources], dtype=pl.List(pl.Float32)),
            identity_error=pl.lit(0.0),
        ),
        dfa_matrix=_matrix(dfa, matrices),
        activations=pl.concat(activations),
        ngrams=_ngrams(random),
        neighbours=_neighbours(random),
        families=_families(),
        proxies=_proxies(),
        proxy_histogram=_proxy_histogram(),
        proxy_examples=_proxy_examples(),
        labels=_labels(),
        head_roles=pl.DataFrame(
            {"head": [0, 0, 2], "role": ["induction", ATTACK, "previous_token"], "value": [0.5] * 3}
        ),
        ioi_edges=_ioi_edges(),
    )


# ---- private -------------------------------------------------------------------------------------


def _matrix(dfa: pl.DataFrame, matrices: list[np.ndarray]) -> pl.DataFrame:
    rows = [
        {**example, "head": head, "dfa_by_source": by_source.tolist()}
        for example, matrix in zip(dfa.iter_rows(named=True), matrices, strict=True)
        for head, by_source in enumerate(matrix)
        if example["rank"] < 2
    ]
    types = {"head": pl.Int32, "dfa_by_source": pl.List(pl.Float32)}
    return pl.DataFrame(rows).cast({**types, "feature": pl.Int32, "rank": pl.Int32})


def _ngrams(random: np.random.Generator) -> pl.DataFrame:
    rows = []
    for feature in range(D_SAE):
        for n in (1, 2, 3):
            for rank in range(len(HOSTILE)):
                ids = [1 + rank, *random.integers(1, len(TOKENS), n - 1).tolist()]
                rows.append(
                    {
                        "feature": feature,
                        "ngram_size": n,
                        "rank": rank,
                        "token_ids": ids,
                        "text": "".join(TOKENS[i] for i in ids).encode("utf-8", "replace").decode(),
                        "n_active": 3,
                        "n_occurrences": 7,
                        "active_share": 0.25,
                        "rate": 3 / 7,
                        "mean_activation": 1.5,
                    }
                )
    types = {
        "feature": pl.Int32,
        "ngram_size": pl.Int32,
        "rank": pl.Int32,
        "token_ids": pl.List(pl.Int32),
    }
    return pl.DataFrame(rows).cast(types)


def _neighbours(random: np.random.Generator) -> pl.DataFrame:
    rows = [
        {
            "feature": feature,
            "measure": kind,
            "rank": rank,
            "neighbour": (feature + 1 + rank) % D_SAE,
            "similarity": float(random.uniform(-1, 1)),
            "n_coactive": rank,
        }
        for feature in range(D_SAE)
        for kind in ("coactivation", "decoder_cosine")
        for rank in range(5)
    ]
    types = {"feature": pl.Int32, "rank": pl.Int32, "neighbour": pl.Int32}
    return pl.DataFrame(rows).cast(types)


def _families() -> pl.DataFrame:
    rows = [
        {
            "feature": feature,
            "family": family,
            "measure": measure,
            "value": 0.7,
            "x": 7,
            "n": 10,
            "ci_low": 0.4,
            "ci_high": 0.9,
            "null_value": None,
            "threshold": 0.6,
            "min_n": 5,
            "meets_threshold": passes,
            "required": True,
            "head": 1,
            "text": text and text.encode("utf-8", "replace").decode(),
        }
        for feature in range(D_SAE)
        for family, measure, passes, text in (
            ("induction", "induction_per_occurrence", True, HOSTILE[feature % len(HOSTILE)]),
            ("successor", "promotes_successor", feature == 1, None),
            (ATTACK, ATTACK, False, ATTACK),
        )
    ]
    rows = [
        {**r, "text": r["text"] and r["text"].encode("utf-8", "replace").decode()} for r in rows
    ]
    types = {"feature": pl.Int32, "head": pl.Int32, "null_value": pl.Float64}
    return pl.DataFrame(rows, infer_schema_length=None).cast(types)


def _proxies() -> pl.DataFrame:
    rows = [
        {
            "proxy": ATTACK,
            "definition": '">' + ATTACK,
            "feature": feature,
            "n_tokens": 100,
            "n_true": 20,
            "n_active": 10 * (feature % 2),
            "n_active_true": 5 * (feature % 2),
            "n_silent_true": 20 - 5 * (feature % 2),
            "activation_sum": 12.0,
            "activation_sum_true": 9.0,
            "specificity_low": 0.2 if feature % 2 else None,
            "specificity_high": 0.8 if feature % 2 else None,
            "sensitivity_low": 0.1,
            "sensitivity_high": 0.4,
        }
        for feature in range(D_SAE)
    ]
    return pl.DataFrame(rows, infer_schema_length=None).cast({"feature": pl.Int32})


def _proxy_histogram() -> pl.DataFrame:
    rows = [
        {
            "proxy": ATTACK,
            "feature": feature,
            "interval": interval,
            "low": 0.5 * interval,
            "high": 0.5 * (interval + 1),
            "n_active": 8 - 2 * interval,
            "n_active_true": interval,
            "activation_sum": 4.0,
            "activation_sum_true": 1.0 + interval,
        }
        for feature in range(0, D_SAE, 2)
        for interval in range(3)
    ]
    return pl.DataFrame(rows).cast({"feature": pl.Int32})


def _proxy_examples() -> pl.DataFrame:
    rows = [
        {
            "proxy": ATTACK,
            "feature": 0,
            "error_kind": error,
            "rank": rank,
            "n_errors": 1234,
            "sequence": 3,
            "position": 5 + rank,
            "activation": 0.25 if error == "false_positive" else 0.0,
            "text": ATTACK,
        }
        for error in ("false_negative", "false_positive")
        for rank in range(2)
    ]
    return pl.DataFrame(rows).cast({"feature": pl.Int32})


def _labels() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "feature": pl.Series([0, 0, 6], dtype=pl.Int32),
            "rater": [ATTACK, "B", "B"],
            "label": [ATTACK, "", "an <i>induction</i> feature"],
            "verdict": ["yes", "no", "unsure"],
            "note": [ATTACK, "", ""],
            "file": ["a.csv"] * 3,
            "line": pl.Series([2, 3, 4], dtype=pl.Int32),
        }
    )


def _ioi_edges() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "upstream_layer": [LAYER, 1, LAYER],
            "upstream_head": [0, 1, 0],
            "downstream_layer": [LAYER + 1, LAYER, LAYER + 1],
            "downstream_head": [1, 0, 2],
            "destination_role": ["END", "END", ATTACK],
            "source_role": ["IO", "S2", "IO"],
            "side": ["destination", "source", "source"],
            "n_prompts": [12, 40, 3],
        }
    )
