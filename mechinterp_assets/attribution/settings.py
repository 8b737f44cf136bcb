"""The sections `rdfa` and `qk_features` of a study.

Belongs here: their keys and the checks that concern them alone. Does not belong here: growing trees
(rdfa_tree.py), splitting scores (qk_features.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mechinterp_assets.settings.section import (
    Count,
    Index,
    LocalName,
    Positive,
    Section,
    repeated,
)


class RdfaFeature(Section):
    """One example of one feature."""

    layer: Index
    """Its layer."""
    feature: Index
    """Its number."""
    rank: Index = 0
    """Which of its examples in feature_top_examples."""


class RdfaSettings(Section):
    """Recursive direct feature attribution (K24 App. N): trees from a feature down to tokens.

    Of the parts of a node the `branching` largest that reach `min_share` of the root get a row of
    their own, and the others share one row, so that every level still sums; nodes are split largest
    first up to `max_nodes`.
    """

    features: list[RdfaFeature] = []
    """Examples by name."""
    per_layer: Count = 8
    """Beside them so many features of every layer above 0, each with its strongest example."""
    rule: Literal["induction", "frequent", "strongest"] = "induction"
    """Which: induction takes those labelled so first, the most often active ones otherwise;
    frequent the most often active; strongest those with the largest activation."""
    max_depth: Positive = 3
    """Features split on one path, the root among them."""
    branching: Positive = 5
    """Parts of a node with a row of their own."""
    min_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the root that such a part reaches."""
    max_nodes: Positive = 400
    """Nodes of a tree."""
    by_head: bool = False
    """Split a feature by source position and head, not by position alone."""
    residual_features: bool = True
    """Split a source by the features of its layer's residual SAE, where the study has one
    (residual_sae), and these by what wrote the stream. Trees of prompts and the explorer too."""

    @field_validator("features")
    @classmethod
    def _distinct(cls, features: list[RdfaFeature]) -> list[RdfaFeature]:
        if (i := repeated((one.layer, one.feature, one.rank) for one in features)) is not None:
            raise ValueError(f"features[{i}] is there twice; remove it")
        return features


class QkFeatureSettings(Section):
    """Attention scores split into pairs of SAE features (K24 App. K.3), on prompts of one task."""

    task: str = "ioi"
    """Whose prompts."""
    heads: Literal["auto"] | list[tuple[Index, Index]] = "auto"
    """[layer, head] pairs, or auto (of ioi alone): the `max_heads` name movers with the largest
    direct effect or, where no head is one, the `max_heads` that attend END -> IO most."""
    max_heads: Positive = 2
    """Heads that auto takes."""
    prompts: Annotated[int, Field(ge=4)] = 64
    """The first base prompts of the task."""
    destination: str = "END"
    """Role whose query attends."""
    sources: list[str] = ["IO", "S1", "S2"]
    """Roles attended to, whose scores are split."""
    contrasts: Literal["auto"] | list[tuple[str, str]] = "auto"
    """Pairs of sources whose difference of scores is split too; auto: the first source against
    every other one."""
    carriers: Literal["auto"] | list[tuple[Index, Index]] = "auto"
    """[layer, head] pairs that bring features from `carried_from` to the destination, or auto: the
    `max_carriers` heads with the role s_inhibition that lower the logit difference most or, where
    no head has it, those that attend END -> S2 most. With task ioi."""
    max_carriers: Positive = 2
    """Carriers that auto takes for each head, in earlier layers."""
    carried_from: str = "S2"
    """Role whose features they bring."""
    top_pairs: Positive = 20
    """Pairs kept per head and role, by each of the two orders."""
    top_k: list[Positive] = [1, 2, 5, 8, 10, 20, 50, 100, 200, 500]
    """Numbers of pairs in whose sum the explained variance is measured."""
    residual_sae: LocalName | None = None
    """Folders with {layer} in their name, in SAELens's format for hook_resid_pre, that split the
    keys of every head; where it is not given, those of the section `residual_sae`."""
    centre_residual: bool = False
    """They read the stream less its mean, as those trained on centred weights do."""

    @model_validator(mode="after")
    def _usable(self) -> "QkFeatureSettings":
        if self.heads == "auto" and self.task != "ioi":
            raise ValueError("heads are found for task ioi alone; name [layer, head] pairs")
        if self.heads != "auto" and (not self.heads or len(set(self.heads)) < len(self.heads)):
            raise ValueError("heads: name at least one, each once")
        if not self.sources or len(set(self.sources)) < len(self.sources):
            raise ValueError("sources: name at least one role, each once")
        if unknown := [role for pair in self.compared for role in pair if role not in self.sources]:
            raise ValueError(
                f"contrasts: {unknown[0]!r} is none of the sources ({', '.join(self.sources)}); "
                "add it there"
            )
        if not self.top_k:
            raise ValueError("top_k: name at least one number of pairs")
        if self.residual_sae is not None and "{layer}" not in self.residual_sae:
            raise ValueError(f"residual_sae: {self.residual_sae!r} has no {{layer}} in it")
        return self

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Pairs of sources whose difference is split."""
        if self.contrasts != "auto":
            return self.contrasts
        return [(self.sources[0], role) for role in self.sources[1:]]
