"""Tokens at which a proxy and a feature disagree, to be read by people (K24 section 3.3, App. E).

Belongs here: which features and tokens are kept, and their text. Does not belong here: counts of
agreement (specificity.py), when a proxy holds (proxies.py).

A false negative is a token at which the proxy is true and the feature silent, a false positive one
at which the feature is active and the proxy is not true. Both are uniform samples without
replacement, since the strongest ones say little about the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mechinterp_assets.features.corpus_tokens import Cells, CorpusTokens
from mechinterp_assets.features.proxies import (
    WINDOW,
    PromotedByInduction,
    Proxy,
    TokenProxy,
    cells_by_induction,
)
from mechinterp_assets.features.sparse_activations import SparseActivations
from mechinterp_assets.model.token_labels import label_bytes

Error = Literal["false_negative", "false_positive"]
PROXY_EXAMPLES_SCHEMA: dict[str, Any] = {
    "proxy": pl.String,
    "feature": pl.Int32,
    "error_kind": pl.String,
    "rank": pl.Int32,
    "n_errors": pl.Int64,
    "sequence": pl.Int64,
    "position": pl.Int32,
    "activation": pl.Float32,
    "text": pl.String,
}


def best_features(proxies: pl.DataFrame, count: int) -> dict[str, list[int]]:
    """Proxy -> the `count` features with the largest F1 for it, ascending.

    proxies: frame feature_proxies of a layer. F1 = 2 n_active_true / (n_active + n_true). Features
    that are never active where the proxy is true are left out.
    """
    if count == 0:
        return {}
    f1 = 2 * pl.col("n_active_true") / (pl.col("n_active") + pl.col("n_true"))
    best = (
        proxies.filter(pl.col("n_active_true") > 0)
        .with_columns(f1=f1)
        .sort("proxy", "f1", "feature", descending=[False, True, False])
        .group_by("proxy", maintain_order=True)
        .head(count)
    )
    found: dict[str, list[int]] = {}
    for proxy, feature in best.select("proxy", "feature").sort("proxy", "feature").iter_rows():
        found.setdefault(proxy, []).append(feature)
    return found


def proxy_examples(
    activations: pl.DataFrame,
    proxies: Sequence[Proxy],
    features: Mapping[str, Sequence[int]],
    tokens: CorpusTokens,
    token_strings: list[str],
    promoted: Mapping[int, int],
    *,
    count: int,
    seed: int,
) -> pl.DataFrame:
    """Frame feature_proxy_examples of one layer, without study and layer.

    activations: feature_activations of at least all `features` (proxy -> features). promoted:
    feature -> id of the token with its largest logit effect. count: examples of each error at most.
    """
    own = SparseActivations.of_frame(activations, tokens)
    place = {feature: at for at, feature in enumerate(own.features.tolist())}
    rows: list[dict[str, Any]] = []
    for number, proxy in enumerate(proxies):
        holds: Cells | None = None
        if isinstance(proxy, TokenProxy) and features.get(proxy.name):
            holds = np.flatnonzero(proxy.holds(tokens, token_strings))
        for feature in features.get(proxy.name, ()):
            if isinstance(proxy, PromotedByInduction):
                holds = cells_by_induction(tokens, promoted[feature])
            assert holds is not None  # proxies are of these two kinds
            part = slice(own.starts[place[feature]], own.starts[place[feature] + 1])
            active = dict(zip(own.cell[part].tolist(), own.activation[part].tolist(), strict=True))
            cells = own.cell[part]
            generator = np.random.default_rng([seed, number, feature])
            errors: tuple[tuple[Error, Cells], ...] = (
                ("false_negative", np.setdiff1d(holds, cells, assume_unique=True)),
                ("false_positive", np.setdiff1d(cells, holds, assume_unique=True)),
            )
            for error, wrong in errors:
                drawn = _drawn(wrong, count, generator)
                for rank, cell in enumerate(drawn.tolist()):
                    rows.append(
                        {
                            "proxy": proxy.name,
                            "feature": feature,
                            "error_kind": error,
                            "rank": rank,
                            "n_errors": len(wrong),
                            "sequence": int(tokens.sequences[cell // tokens.context]),
                            "position": cell % tokens.context,
                            "activation": active.get(cell, 0.0),
                            "text": _text(cell, tokens, token_strings),
                        }
                    )
    return pl.DataFrame(rows, schema=PROXY_EXAMPLES_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _drawn(cells: Cells, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most `count` of the cells, in corpus order."""
    if len(cells) <= count:
        return cells
    drawn: NDArray[np.int64] = np.sort(generator.choice(cells, count, replace=False))
    return drawn


def _text(cell: int, tokens: CorpusTokens, token_strings: list[str]) -> str:
    """Text of the last WINDOW tokens up to a cell, from the last BOS on."""
    first = cell
    while cell - first < WINDOW - 1 and first % tokens.context > 1 and tokens.read[first - 1]:
        first -= 1
    ids = tokens.token_ids[first : cell + 1].tolist()
    return b"".join(label_bytes(token_strings[i]) for i in ids).decode(errors="replace")
