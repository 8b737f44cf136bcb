"""Answers of the explorer page: what an exploration says, as JSON.

Belongs here: which rows a page gets, how many, and the Python that makes them. Does not belong
here: the numbers (explore/), models and caches (explorer.py), what questions are (
explorer_questions.py). Texts are labels as pages show them; pages set them as text, never as HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from mechinterp_assets.dashboards.live import explorer_questions as asked

if TYPE_CHECKING:  # torch
    from mechinterp_assets.attribution.rdfa_tree import Node
    from mechinterp_assets.explore.exploration import Exploration

SHOWN_PARTS = 40
SHOWN_WRITERS = 30
SHOWN_SLICES = 64
Label = Callable[[str], str]
Answer = dict[str, Any]


def answer(
    question: asked.OfExploration,
    explored: Exploration,
    label: Label,
    second: Exploration | None = None,
) -> Answer:
    """The answer to a question about a prompt; label: of a token, as pages show it.

    second: the other prompt of a question that names one. The key `code` is Python that gives the
    same numbers.
    """
    made = _ANSWERS[type(question)](question, explored, label, second)
    made["code"] = code(question, made.pop("call"))
    return made


def code(question: asked.OfExploration, calls: str | Sequence[str]) -> str:
    """Python that makes an answer, from the study's name on."""
    lines = [
        "import mechinterp_assets as mi",
        "",
        f"study = mi.open({question.study!r})",
        f"explored = study.explore({question.text!r})",
    ]
    if (other := getattr(question, "other", None)) is not None:
        lines.append(f"other = study.explore({other!r})")
    lines += [calls] if isinstance(calls, str) else calls
    return "\n".join(lines)


def effect_code(question: asked.LogitEffect) -> str:
    """Python that makes the answer of a logit effect."""
    return "\n".join(
        [
            "import mechinterp_assets as mi",
            "",
            f"feature = mi.open({question.study!r}).feature({question.layer}, {question.feature})",
            f"feature.logit_effect({question.token!r})",
        ]
    )


# ---- private -------------------------------------------------------------------------------------


def _prompt(q: asked.Prompt, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    rows = e.tokens.to_dicts()
    for row in rows:
        row["token"], row["top_token"] = label(row["token"]), label(row["top_token"])
    config = e.model.config
    return {
        "tokens": rows,
        "layers": list(e.saes),
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "errors": _columns(e.errors),
        "call": "explored.tokens",
    }


def _features(
    q: asked.Features, e: Exploration, label: Label, second: Exploration | None
) -> Answer:
    e.check_sae(q.layer)
    rows = e.features.filter(pl.col("layer") == q.layer).drop("layer")
    return {
        "features": _columns(rows),
        "call": f"explored.features.filter(layer={q.layer})",
    }


def _dfa(q: asked.Dfa, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    frame = e.dfa(q.layer, q.feature, q.position)
    sources = frame.filter(kind="source")
    bias = frame.filter(kind="encoder_bias")["value"].sum()
    heads = sources.group_by("head").agg(pl.col("value").sum()).sort("head")
    positions = sources.group_by("source").agg(pl.col("value").sum()).sort("source")
    return {
        "activation": frame["value"].sum(),
        "bias": bias,
        "heads": heads["value"].to_list(),
        "sources": positions["value"].to_list(),
        "matrix": [own["value"].to_list() for own in sources.partition_by("head")]
        if len(positions) <= asked.MAX_TOKENS
        else [],
        "call": f"explored.dfa(layer={q.layer}, feature={q.feature}, position={q.position})",
    }


def _root(q: asked.Parts, e: Exploration) -> tuple[Node, str]:
    root = q.root
    if isinstance(root, asked.FeatureRoot):
        arguments = f"layer={root.layer}, feature={root.feature}, position={root.position}"
        node = e.feature_node(root.layer, root.feature, root.position)
        return node, f"root = explored.feature_node({arguments})"
    arguments = f"{root.token!r}, position={root.position}, versus={root.versus!r}"
    node = e.logit_node(root.token, root.position, root.versus)
    return node, f"root = explored.logit_node({arguments})"


def _parts(q: asked.Parts, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    root, first_line = _root(q, e)
    opened = []
    for path in q.paths:
        opened.append({"path": path, **_cut(e.parts(root, path), label)})
    return {
        "value": root.value,
        "opened": opened,
        "call": [first_line, *(f"explored.parts(root, {path!r})" for path in q.paths)],
    }


def _heads(q: asked.Heads, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    frame = e.attended(q.position).filter(pl.col("layer") == q.layer)
    return {
        "heads": _columns(frame.drop("layer")),
        "call": f"explored.attended(position={q.position}).filter(layer={q.layer})",
    }


def _pattern(q: asked.Pattern, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    rows = e.pattern(q.layer, q.head).partition_by("destination", maintain_order=True)
    return {
        "pattern": [[round(value, 4) for value in row["attention"].to_list()] for row in rows],
        "call": f"explored.pattern(layer={q.layer}, head={q.head})",
    }


def _slices(q: asked.Slices, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    pair = e.slices(q.layer, q.head, q.destination, q.source)
    writers = (
        pair.writers(q.slices)
        .group_by("side", "writer", "layer", "head")
        .agg(
            pl.col("value").sum(),
            read_position=pl.col("read_position").get(pl.col("value").abs().arg_max()),
        )
        .sort(
            pl.col("value").abs(),
            "side",
            "writer",
            "layer",
            "head",
            descending=[True] + [False] * 4,
        )
    )
    arguments = f"layer={q.layer}, head={q.head}, destination={q.destination}, source={q.source}"
    return {
        "score": pair.score,
        "attention": pair.attention,
        "slices": _columns(pair.slices.head(SHOWN_SLICES)),
        "sides": {
            side: _columns(writers.filter(side=side).head(SHOWN_WRITERS))
            for side in ("destination", "source")
        },
        "total": writers.filter(side="destination")["value"].sum(),
        "call": [
            f"pair = explored.slices({arguments})",
            "pair.slices",
            f"pair.writers({q.slices!r})",
        ],
    }


def _next(q: asked.Next, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    return {
        "next": _labelled(e.next_tokens(q.position, 10), label),
        "lens": _labelled(e.logit_lens(q.position, 3), label),
        "call": [
            f"explored.next_tokens(position={q.position})",
            f"explored.logit_lens(position={q.position})",
        ],
    }


def _logits(q: asked.Logits, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    frame = e.logit_attribution(q.token, q.position, q.versus, by=q.by)
    return {
        "value": frame["value"].sum(),
        **_cut(frame, label),
        "call": (
            f"explored.logit_attribution({q.token!r}, position={q.position}, versus={q.versus!r}, "
            f"by={q.by!r})"
        ),
    }


def _what_if(q: asked.WhatIf, e: Exploration, label: Label, second: Exploration | None) -> Answer:
    from mechinterp_assets.explore.exploration import same_positions

    matched: dict[int, int] = {}
    if second is not None:
        matched = same_positions(e.token_ids.tolist(), second.token_ids.tolist())
    found = e.what_if(q.edits, position=q.position, other=second, matched=matched)
    other = "" if second is None else f", other=other, matched={matched!r}"
    return {
        "intervention": found.intervention,
        "kl": found.kl,
        "tokens": _labelled(found.tokens, label),
        "call": f"explored.what_if({q.edits!r}, position={q.position}{other})",
    }


def _difference(
    q: asked.Difference, e: Exploration, label: Label, second: Exploration | None
) -> Answer:
    assert second is not None
    frame = e.difference(q.layer, q.position, second, q.other_position)
    return {
        "features": _columns(frame),
        "call": f"explored.difference({q.layer}, {q.position}, other, {q.other_position})",
    }


_ANSWERS: dict[type, Callable[[Any, Exploration, Label, Exploration | None], Answer]] = {
    asked.Prompt: _prompt,
    asked.Features: _features,
    asked.Dfa: _dfa,
    asked.Parts: _parts,
    asked.Heads: _heads,
    asked.Pattern: _pattern,
    asked.Slices: _slices,
    asked.Next: _next,
    asked.Logits: _logits,
    asked.WhatIf: _what_if,
    asked.Difference: _difference,
}


def _columns(frame: pl.DataFrame) -> dict[str, list[Any]]:
    return frame.to_dict(as_series=False)


def _cut(frame: pl.DataFrame, label: Label) -> Answer:
    """The first parts, and how many others there are with what they add up to."""
    rest = frame.slice(SHOWN_PARTS)
    return {
        "parts": _labelled(frame.head(SHOWN_PARTS), label),
        "n_rest": len(rest),
        "rest": rest["value"].sum(),
    }


def _labelled(frame: pl.DataFrame, label: Label) -> list[dict[str, Any]]:
    """Rows with the label of their token, where they have one."""
    return [
        {**row, "token": None if row["token"] is None else label(row["token"])}
        for row in frame.to_dicts()
    ]
