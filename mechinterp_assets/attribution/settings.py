"""The settings of recursive attribution and of scores split by features.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mechinterp_assets.settings.section import Index, Positive, Section


class RdfaFeature(Section):
    """One example of one feature: the `rank`-th of feature_top_examples."""

    layer: Annotated[int, Field(ge=0)]
    feature: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=0)] = 0


class RdfaSection(Section):
    """Recursive direct feature attribution (K24 App. N): trees from a feature down to tokens.

    `features` are named examples. Beside them `per_layer` features of every layer above 0 are
    chosen, each with its strongest example: `rule` induction takes those labelled so first, the
    most often active ones otherwise; frequent the most often active; strongest those with the
    largest activation.

    A tree splits at most `max_depth` features on a path. Of the parts of a node the `branching`
    largest that reach `min_share` of the root get a row of their own, and the others share one row,
    so that every level still sums; nodes are split largest first up to `max_nodes`. `by_head`:
    split a feature by source position and head.
    """

    features: list[RdfaFeature] = []
    per_layer: Annotated[int, Field(ge=0)] = 8
    rule: Literal["induction", "frequent", "strongest"] = "induction"
    max_depth: Positive = 3
    branching: Positive = 5
    min_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_nodes: Positive = 400
    by_head: bool = False

    @field_validator("features")
    @classmethod
    def _distinct(cls, features: list[RdfaFeature]) -> list[RdfaFeature]:
        for i, feature in enumerate(features):
            if feature in features[:i]:
                raise ValueError(f"features[{i}] is there twice; remove it")
        return features


class QkFeatureSection(Section):
    """Attention scores split into pairs of SAE features (K24 Fig. 18), on `prompts` of one task.

    `heads`: [layer, head] pairs, or auto (of ioi alone): the `max_heads` name movers with the
    largest direct effect or, where no head is one, the `max_heads` that attend END -> IO most.
    Scores from the role `destination` to the roles `sources` are split, and the differences
    `contrasts` between two of those; auto: between the first source and every other one. The first
    `top_pairs` pairs by each order are kept; `top_k`: numbers of pairs whose explained variance is
    measured. `residual_sae`: folders with {layer} in their name, in SAELens's format for
    hook_resid_pre, that split the keys; `centre_residual`: they read the stream less its mean, as
    those trained on centred weights do.
    """

    task: str = "ioi"
    heads: Literal["auto"] | list[tuple[Index, Index]] = "auto"
    max_heads: Positive = 2
    prompts: Annotated[int, Field(ge=4)] = 64
    destination: str = "END"
    sources: list[str] = ["IO", "S1", "S2"]
    contrasts: Literal["auto"] | list[tuple[str, str]] = "auto"
    top_pairs: Positive = 20
    top_k: list[Positive] = [1, 2, 5, 10, 20, 50, 100, 200, 500]
    residual_sae: str | None = None
    centre_residual: bool = False

    @model_validator(mode="after")
    def _usable(self) -> "QkFeatureSection":
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
