"""What is kept of prompts: the frames of the tables prompt_*.

Belongs here: which of an exploration's answers become rows. Does not belong here: the answers
(exploration.py), Dagster, files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl

from mechinterp_assets.attribution.frozen_forward import RdfaError
from mechinterp_assets.attribution.rdfa_tree import TREE_SCHEMA, Node
from mechinterp_assets.attribution.settings import RdfaSettings
from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.explore.errors import ExploreError
from mechinterp_assets.explore.exploration import Exploration, Explorer
from mechinterp_assets.explore.settings import PromptSettings

# Features are followed back until the tree is full.
_ANY_DEPTH = 99


def explored_prompts(
    explorer: Explorer, sets: Mapping[str, Sequence[str]]
) -> Iterator[tuple[dict[str, object], Exploration]]:
    """Prompts one by one with their keys: prompt_set, prompt_number (in its set).

    Raises ExploreError, which names the prompt, before any is run.
    """
    ids = []
    for name, texts in sets.items():
        for number, text in enumerate(texts):
            try:
                ids.append((name, number, explorer.token_ids(text)))
            except ExploreError as error:
                raise ExploreError(f"prompts: {name}, prompt {number}: {error}") from None
    for name, number, own in ids:
        yield {"prompt_set": name, "prompt_number": number}, Exploration(explorer, own)


def prompt_frames(
    explored: Exploration, settings: PromptSettings
) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """Rows of one prompt by table, without its keys; and why tables have none, by table."""
    frames = {"prompt_tokens": token_rows(explored), "prompt_features": explored.features}
    reasons: dict[str, str] = {}

    def add(name: str, make: Callable[[], pl.DataFrame]) -> None:
        try:
            frames[name] = make()
        except (RdfaError, CircuitError) as error:
            reasons[name] = str(error)

    add("prompt_attributions", lambda: tree_rows(explored, settings))
    add("prompt_head_effects", lambda: head_rows(explored, settings))
    heads = frames.get("prompt_head_effects")
    if heads is not None:
        add("prompt_pairs", lambda: pair_rows(explored, heads, settings))
    else:
        reasons["prompt_pairs"] = "heads are chosen by prompt_head_effects, which has no rows"
    return frames, reasons


def token_rows(explored: Exploration) -> pl.DataFrame:
    """Rows of prompt_tokens."""
    return explored.tokens.rename(
        {
            "counted": "in_statistics",
            "rank": "likelier_tokens",
            "top_token_id": "next_token_id",
            "top_token": "next_token",
            "top_probability": "next_probability",
        }
    )


def head_rows(explored: Exploration, settings: PromptSettings) -> pl.DataFrame:
    """Rows of prompt_head_effects: direct and ablation effects at the last position.

    Raises RdfaError where logits cannot be attributed directly.
    """
    token = _next_token(explored)
    direct = (
        explored.logit_attribution(token)
        .filter(node_kind="head")
        .select("layer", "head", direct_logit_effect="value")
        .sort("layer", "head")
        .with_columns(next_token_id=pl.lit(token, pl.Int32))
    )
    if not settings.ablations:
        none = pl.lit(None, pl.Float64)
        return direct.with_columns(ablation_kl=none, ablated_probability=none)
    ablated = explored.heads_ablated(token)
    return direct.join(ablated, on=["layer", "head"], how="left", maintain_order="left")


def tree_rows(explored: Exploration, settings: PromptSettings) -> pl.DataFrame:
    """Rows of prompt_attributions: the next token's logit, each layer's strongest feature there.

    Raises RdfaError where the model's blocks are no sums.
    """
    growth = RdfaSettings(
        max_depth=_ANY_DEPTH,
        branching=settings.branching,
        min_share=settings.min_share,
        max_nodes=settings.max_nodes,
    )
    last, strings = len(explored) - 1, explored.explorer.strings
    token = _next_token(explored)
    roots: list[Node] = [explored.logit_node(token)]
    strongest = explored.features.filter(pl.col("position") == last).unique(
        "layer", keep="first", maintain_order=True
    )
    for layer, feature in strongest.select("layer", "feature").iter_rows():
        roots.append(explored.feature_node(layer, feature, last))
    frames = [
        explored.tree(root, growth).select(pl.lit(number, pl.Int32).alias("tree"), pl.all())
        for number, root in enumerate(roots)
    ]
    label: Callable[[int], str] = strings.__getitem__
    return pl.concat(frames).select(
        "tree",
        *(name for name in TREE_SCHEMA if name not in ("dfa", "share_of_parent", "share_of_root")),
        pl.col("dfa").alias("path_contribution"),
        pl.col("token_id").map_elements(label, return_dtype=pl.String).alias("token"),
    )


def pair_rows(explored: Exploration, heads: pl.DataFrame, settings: PromptSettings) -> pl.DataFrame:
    """Rows of prompt_pairs; heads: head_rows of the prompt.

    Raises CircuitError where scores have no slices.
    """
    last, rows = len(explored) - 1, []
    strongest = heads.sort(
        pl.col("direct_logit_effect").abs(), "layer", "head", descending=[True, False, False]
    ).head(settings.pairs)
    for layer, head in strongest.select("layer", "head").sort("layer", "head").iter_rows():
        source = int(explored.forward.pattern[layer][head, last].argmax())
        pair = explored.slices(layer, head, last, source)
        chosen = pair.slices.filter("selected")
        rows.append(
            {
                "layer": layer,
                "head": head,
                "destination": last,
                "source": source,
                "attention": pair.attention,
                "uncapped_score": pair.score,
                "slices": sorted(chosen["slice"].to_list()),
                "n_slices": len(chosen),
                "slice_sum": float(chosen["term"].sum()),
            }
        )
    return pl.DataFrame(rows, schema=_PAIRS_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


def _next_token(explored: Exploration) -> int:
    """The likeliest one behind the prompt."""
    return int(explored.next_tokens(k=1)["token_id"][0])


_PAIRS_SCHEMA = pl.Schema(
    {
        "layer": pl.Int32(),
        "head": pl.Int32(),
        "destination": pl.Int32(),
        "source": pl.Int32(),
        "attention": pl.Float64(),
        "uncapped_score": pl.Float64(),
        "slices": pl.List(pl.Int32()),
        "n_slices": pl.Int32(),
        "slice_sum": pl.Float64(),
    }
)
