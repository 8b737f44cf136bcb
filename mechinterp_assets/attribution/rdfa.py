"""Recursive direct feature attribution: from a feature at a position down to tokens (K24 App. N).

Belongs here: trees of whole examples. Does not belong here: the splits (rdfa_splits.py), the
forward pass (frozen_forward.py), which parts become rows (rdfa_tree.py).
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.attribution.frozen_forward import FrozenModel, RdfaError
from mechinterp_assets.attribution.rdfa_splits import (
    InactiveFeatureError,
    Splits,
    check_feature,
    check_widths,
)
from mechinterp_assets.attribution.rdfa_tree import TREE_SCHEMA, grow
from mechinterp_assets.attribution.residual_saes import ResidualSaes
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder

__all__ = ["RDFA_SCHEMA", "InactiveFeatureError", "Rdfa", "RdfaError"]

RDFA_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "rank": pl.Int32(),
        "sequence": pl.Int64(),
        "position": pl.Int32(),
        **TREE_SCHEMA,
    }
)


class Rdfa:
    """Trees of features of one model.

    Args:
        model: its raw view runs the sequences.
        saes: SAEs on raw z by layer; a layer that is not there has its attention output unsplit.
        settings: how far trees are grown.
        residual: SAEs on the residual stream, which split what is read at their layers.

    Raises:
        RdfaError: an SAE does not fit the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[int, SparseAutoencoder],
        settings: RdfaSettings | None = None,
        *,
        residual: ResidualSaes | None = None,
    ) -> None:
        check_widths(model, saes, residual)
        self._residual = residual
        self._model, self._saes = FrozenModel(model), saes
        self._settings = settings or RdfaSettings()

    def check(self, layer: int, feature: int) -> None:
        """Raise RdfaError unless `layer` has an SAE and that has `feature`."""
        check_feature(self._saes, layer, feature)

    def tree(self, token_ids: Tensor, layer: int, feature: int, position: int) -> pl.DataFrame:
        """Tree of one feature at one position of token_ids [position], frame of TREE_SCHEMA.

        Raises:
            RdfaError: see `check`; `position` lies outside the sequence; the model's blocks are not
                sums (FrozenModel.run); an active feature is not its pre-activation.
            InactiveFeatureError: the feature is not active there.
        """
        self.check(layer, feature)
        if not 0 <= position < len(token_ids):
            raise RdfaError(
                f"position {position} lies outside a sequence of {len(token_ids)} tokens; pass the "
                "sequence that the example comes from"
            )
        # Later tokens cannot matter to a causal model.
        forward = self._model.run(token_ids[: position + 1], layer + 1)
        splits = Splits(
            self._model,
            forward,
            self._saes,
            residual=self._residual,
            max_depth=self._settings.max_depth,
            by_head=self._settings.by_head,
        )
        return grow(splits.root(layer, feature, position), self._settings)

    def trees(
        self,
        layer: int,
        examples: pl.DataFrame,
        token_ids: Callable[[NDArray[np.int64]], Tensor],
        *,
        on_inactive: Callable[[InactiveFeatureError], None] | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Frames of RDFA_SCHEMA, one per example of `layer`, in the order of feature and rank.

        Args:
            layer: layer of the features.
            examples: columns feature, rank, sequence, position (feature_top_examples).
            token_ids: gives token ids [n, position] int64 for sequence numbers [n].
            on_inactive: receives the error of an example whose feature is not active, which then
                has no tree; without it the error is raised.

        Raises:
            RdfaError: see `tree`. Unknown features are refused before the first tree.
        """
        rows = examples.select("feature", "rank", "sequence", "position").sort("feature", "rank")
        for feature in rows["feature"].unique(maintain_order=True):
            self.check(layer, feature)
        for feature, rank, sequence, position in rows.iter_rows():
            ids = token_ids(np.array([sequence], dtype=np.int64))[0]
            try:
                tree = self.tree(ids, layer, feature, position)
            except InactiveFeatureError as error:
                if on_inactive is None:
                    raise
                on_inactive(error)
                continue
            of_example = {
                "feature": feature,
                "rank": rank,
                "sequence": sequence,
                "position": position,
            }
            yield tree.select(
                *(pl.lit(v, RDFA_SCHEMA[name]).alias(name) for name, v in of_example.items()),
                pl.all(),
            )
