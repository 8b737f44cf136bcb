"""The head x source matrix of direct feature attribution, as a heat map under its example.

Belongs here: which source positions get a column. The picture is drawn by charts.heat_map.
"""

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mechinterp_assets.dashboards.charts import heat_map, signed
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.model.names import head_name

COLUMNS = 44  # sources shown; more do not fit on a page
RECENT = 24  # of them, the nearest ones, in any case
NAME = 9  # longest column name, in characters


def shown_sources(matrix: NDArray[np.float32]) -> list[int]:
    """Sources with a column, ascending: all, or the nearest and the strongest of the others."""
    n = matrix.shape[1]
    if n <= COLUMNS:
        return list(range(n))
    size = np.abs(matrix[:, : n - RECENT]).max(axis=0)
    strongest = np.argsort(-size, kind="stable")[: COLUMNS - RECENT]
    return sorted([*strongest.tolist(), *range(n - RECENT, n)])


def matrix_picture(
    matrix: NDArray[np.float32], token_ids: NDArray[np.integer], layer: int, texts: TokenTexts
) -> Markup:
    """Heat map of one example's matrix [head, source]; the last source is the destination.

    The number right of a head is its sum over all sources, those without a column included.
    """
    sources = shown_sources(matrix)
    destination = matrix.shape[1] - 1
    labels = [texts.labels[int(token_ids[source])] for source in sources]
    heads = [head_name(layer, head) for head in range(len(matrix))]
    totals = matrix.sum(axis=1, dtype=np.float64).tolist()
    head, source = np.unravel_index(int(np.abs(matrix).argmax()), matrix.shape)
    where = "itself" if source == destination else f"{destination - source} back"
    return heat_map(
        matrix[:, sources].tolist(),
        label=f"DFA by head and source; strongest: head {heads[int(head)]} at {where}, "
        f"{signed(float(matrix[head, source]))}",
        rows=heads,
        totals=[signed(total) for total in totals],
        columns=[label if len(label) <= NAME else label[: NAME - 1] + "…" for label in labels],
        titles=[
            f"reads {label} at {source}, "
            + ("itself" if source == destination else f"{destination - source} back")
            for label, source in zip(labels, sources, strict=True)
        ],
        gaps={i for i, s in enumerate(sources) if s != (sources[i - 1] + 1 if i else 0)},
    )
