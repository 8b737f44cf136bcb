"""Ablating single features over a corpus: where the loss rises (K24 App. E.3).

Belongs here: the loss at every prediction with and without a feature, summed by what is due there.
Does not belong here: ablation on prompts with answers (interventions/), splicing of whole SAEs
(sae/evaluation.py).

A feature i is removed wherever it is active: z' = z - f_i d_i at all tokens but position 0, BOS and
what the study leaves out, the SAE's error kept. A sequence in which it is active nowhere is left as
it is, so that sequences are drawn among the others, and shares of the loss are those of the corpus.

Predictions are told apart by B, the token whose logit the feature raises most: `due_by_induction`
where the next token is B and an earlier occurrence of the current token was followed by B;
`due` where the next token is B otherwise; `other`. K24 finds 82% of the increase of the loss where
the token of one induction feature is due. Rises and falls of the loss are summed apart: the share
is that of all rises.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.corpora.token_documents import numbered_documents
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.splicing import clean_pass, spliced_logits
from mechinterp_assets.statistics.clustered_shares import ClusteredShares

POSITION_CLASSES = ("due_by_induction", "due", "other")
LOGIT_BYTES = 128 * 2**20
"""Logits of one pass that are held at once; sequences of a batch follow from it."""
FEATURE_LOSS_SCHEMA = pl.Schema(
    {
        "feature": pl.Int32(),
        "position_class": pl.String(),
        "chosen_by": pl.String(),
        "promoted_token_id": pl.Int32(),
        "n_sequences": pl.Int64(),
        "n_active_sequences": pl.Int64(),
        "n_documents": pl.Int64(),
        "forward_passes": pl.Int64(),
        "n": pl.Int64(),
        "n_active": pl.Int64(),
        "loss_increase": pl.Float64(),
        "loss_decrease": pl.Float64(),
        "increase_share": pl.Float64(),
        "ci_low": pl.Float64(),
        "ci_high": pl.Float64(),
    }
)


@dataclass(frozen=True)
class AblatedFeature:
    """A feature and where it is removed.

    promoted_token_id: B. token_ids [sequence, position] of the sequences drawn, out of
    n_active_sequences in which the feature is active. chosen_by: why this feature. documents
    [sequence, position]: document of each token; None: every sequence is one.
    """

    feature: int
    promoted_token_id: int
    token_ids: Tensor
    n_active_sequences: int
    chosen_by: str
    documents: NDArray[np.int64] | None = None


@torch.no_grad()
def feature_loss(
    model: LanguageModel,
    sae: SparseAutoencoder,
    layer: int,
    features: Iterable[AblatedFeature],
) -> pl.DataFrame:
    """Frame feature_loss of one layer, without study and layer: a row per feature and class.

    sae: on raw z of the layer. Two passes per feature and sequence: the clean one, and one from the
    layer on. Intervals: over documents (clustered_shares.py), predictions weighted by their rise; a
    prediction is of the document of the token it is made from.
    """
    rows: list[dict[str, object]] = []
    for one in features:
        rows += _rows(one, _sums(model, sae, layer, one))
    return pl.DataFrame(rows, schema=FEATURE_LOSS_SCHEMA)


# ---- private -------------------------------------------------------------------------------------

# What is summed over the predictions of a document.
_N, _ACTIVE, _INCREASE, _DECREASE, _SQUARES = range(5)


def _sums(
    model: LanguageModel, sae: SparseAutoencoder, layer: int, one: AblatedFeature
) -> NDArray[np.float64]:
    """Sums [document, class, 5]."""
    n_sequences, length = one.token_ids.shape
    number, n_documents = numbered_documents(one.documents, (n_sequences, length))
    document = torch.from_numpy(number)
    n_classes = len(POSITION_CLASSES)
    sums = torch.zeros(n_documents * n_classes, 5, dtype=torch.float64)
    batch = max(1, LOGIT_BYTES // (4 * model.config.d_vocab * length))
    direction = sae.W_dec[one.feature].to(model.device)
    for start in range(0, len(one.token_ids), batch):
        ids = one.token_ids[start : start + batch].long().to(model.device)
        where = valid_positions(ids, model.left_out_ids)
        clean = clean_pass(model, [layer], ids, where)
        z = clean.z[layer]
        f = sae.encode(z)[:, one.feature]
        edited = spliced_logits(model, clean, layer, z - f[:, None] * direction)
        change = clean.losses(edited, edited.logsumexp(1)) - clean.losses(
            clean.logits, clean.log_normalizer
        )
        kind = _classes(ids, one.promoted_token_id)[where][clean.predicting]
        values = torch.stack(
            [
                torch.ones_like(change),
                (f[clean.predicting] > 0).to(change),
                change.clamp(min=0),
                -change.clamp(max=0),
                change.clamp(min=0).square(),
            ],
            dim=1,
        )
        of = document[start : start + batch][where.cpu()][clean.predicting.cpu()]
        sums.index_add_(0, of * n_classes + kind.cpu(), values.double().cpu())
    summed: NDArray[np.float64] = sums.view(n_documents, n_classes, -1).numpy()
    return summed


def _classes(ids: Tensor, promoted: int) -> Tensor:
    """Class of what is predicted at every position [sequence, position]; the last: other."""
    after = torch.zeros_like(ids, dtype=torch.bool)
    after[:, :-1] = ids[:, 1:] == promoted
    same = ids[:, :, None] == ids[:, None, :]
    earlier = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril(-1)
    by_induction = (same & earlier & after[:, None, :]).any(2)
    other = torch.full_like(ids, POSITION_CLASSES.index("other"))
    other[after] = POSITION_CLASSES.index("due")
    other[after & by_induction] = POSITION_CLASSES.index("due_by_induction")
    return other


def _rows(one: AblatedFeature, sums: NDArray[np.float64]) -> Iterator[dict[str, object]]:
    """Rows of one feature from sums [document, class, 5]."""
    total, n_sequences = sums.sum(0), len(one.token_ids)
    low, high = _share_intervals(sums[:, :, _INCREASE], float(total[:, _SQUARES].sum()))
    for at, name in enumerate(POSITION_CLASSES):
        increase = float(total[:, _INCREASE].sum())
        yield {
            "feature": one.feature,
            "position_class": name,
            "chosen_by": one.chosen_by,
            "promoted_token_id": one.promoted_token_id,
            "n_sequences": n_sequences,
            "n_active_sequences": one.n_active_sequences,
            "n_documents": len(sums),
            "forward_passes": 2 * n_sequences,
            "n": int(total[at, _N]),
            "n_active": int(total[at, _ACTIVE]),
            "loss_increase": float(total[at, _INCREASE]),
            "loss_decrease": float(total[at, _DECREASE]),
            "increase_share": float(total[at, _INCREASE]) / increase if increase > 0 else None,
            "ci_low": low[at],
            "ci_high": high[at],
        }


def _share_intervals(
    rise: NDArray[np.float64], squares: float
) -> tuple[list[float | None], list[float | None]]:
    """95% intervals over documents of each class's share of all rises.

    rise [document, class]; squares: sum over predictions of their rise squared. None where the
    loss rises in fewer than two documents.
    """
    n_documents, n_classes = rise.shape
    shares = ClusteredShares.of_clusters(
        np.tile(np.arange(n_classes), n_documents),
        n_classes,
        rise.ravel(),
        np.repeat(rise.sum(1), n_classes),
        np.full(n_classes, rise.sum() ** 2 / squares if squares > 0 else 0.0),
    )
    low, high = (
        [None if np.isnan(bound) else float(bound) for bound in bounds]
        for bounds in shares.interval()
    )
    return low, high
