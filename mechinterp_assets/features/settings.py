"""The sections `features` and `comparisons` of a study.

Belongs here: their keys and the checks that concern them alone. Does not belong here: how features
are measured (attribution/), proxies (proxies.py), matching of SAEs (matching.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mechinterp_assets.settings.section import (
    Count,
    Index,
    Positive,
    Section,
    Text,
    repeated,
)

PROXY_KINDS = ("tokens", "regex", "next_by_induction", "induction", "promoted_by_induction")


class ProxySettings(Section):
    """A rule that stands for what features mean, under a `name`; exactly one kind."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What tables call it."""
    tokens: list[Text] | None = None
    """The current token is one of these (as in the table vocabulary, with their spaces)."""
    regex: Text | None = None
    """Found in the text of the last `window` tokens up to and including the current one, from the
    last BOS on; Rust's regex syntax; end it with $ to tie it to the current token."""
    window: Positive | None = None
    """Tokens that regex looks at (16)."""
    next_by_induction: Text | None = None
    """An earlier occurrence of the current token was followed by this token."""
    induction: Literal[True] | None = None
    """true: an earlier occurrence of the current token was followed by any token."""
    promoted_by_induction: Literal[True] | None = None
    """true: an earlier occurrence of the current token was followed by the token that the feature
    itself promotes most."""
    features: dict[Index, list[Index]] | None = None
    """Index -> features compared with the proxy; layers left out have none. Default: all that
    fired."""

    @model_validator(mode="after")
    def _one_kind(self) -> "ProxySettings":
        given = [kind for kind in PROXY_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"proxy {self.name!r}: give exactly one of {', '.join(PROXY_KINDS)} (given: "
                f"{given})"
            )
        if self.tokens == []:
            raise ValueError(f"proxy {self.name!r}: tokens is empty; name at least one")
        if self.window is not None and self.regex is None:
            raise ValueError(f"proxy {self.name!r}: window belongs to regex; remove it")
        return self

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str | None) -> str | None:
        if regex is not None:
            from mechinterp_assets.features.proxies import check_regex  # imports polars

            check_regex(regex)
        return regex


class FeatureSettings(Section):
    """What is kept of each feature, and which features have pages."""

    max_tokens: Positive = 1_000_000
    """Tokens that features are measured on."""
    top_examples: Positive = 20
    """Strongest examples of each feature."""
    context_window: Positive = 24
    """Tokens that an example shows before and after."""
    intervals: Positive = 10
    """Activation intervals from 0 to the largest activation."""
    interval_examples: Positive = 5
    """Random examples of each interval."""
    interval_top_examples: Positive = 5
    """Strongest examples of each interval."""
    ngrams: Positive = 10
    """n-grams kept for each of n = 1, 2, 3."""
    neighbours: Positive = 10
    """Other features kept by co-activation, and as many by decoder cosine."""
    coactivation: Positive = 5
    """Features of another layer kept by co-activation."""
    coactivation_layers: Positive = 4
    """Layers with an SAE in front of a layer, and as many behind it, that are looked at for that;
    each pair of layers costs what feature_neighbours does for one."""
    logit_tokens: Positive = 10
    """Tokens that a feature promotes, and as many that it suppresses."""
    dfa_examples: Positive = 20
    """The first of the top examples that have direct feature attribution, by head and source."""
    dfa_matrix_examples: Count = 2
    """The first of those that have the whole head x source matrix."""
    dfa_corpus_sequences: Positive = 64
    """Sequences over all of whose active tokens direct feature attribution is summed."""
    loss_features: Count = 8
    """Features of a layer that are removed from text to see where the loss rises (feature_loss),
    those of the family induction first; each costs two forward passes per sequence."""
    loss_sequences: Positive = 32
    """Sequences of each, drawn among those in which it is active."""
    pages: Positive = 256
    """Features of a layer, the most often active ones, that get a page."""
    proxies: list[ProxySettings] = []
    """Rules that each feature is compared with (feature_proxies)."""
    proxy_examples: Count = 50
    """Tokens kept at which a proxy is true and a feature silent, and as many of the reverse."""
    proxy_example_features: Count = 5
    """Features of a layer with such tokens, those with the largest F1 for each proxy."""

    @field_validator("proxies")
    @classmethod
    def _distinct_names(cls, proxies: list[ProxySettings]) -> list[ProxySettings]:
        if (i := repeated(proxy.name for proxy in proxies)) is not None:
            raise ValueError(f"proxies share the name {proxies[i].name!r}; rename one")
        return proxies


class ComparisonSettings(Section):
    """Another SAE that each layer's SAE is matched with (table sae_matching).

    The previous version of a layer's own SAE is compared without being named, where one is still
    stored.
    """

    with_study: str | None = Field(default=None, alias="with")
    """Its study (default: this one)."""
    layer: Index | Literal["next"] | None = None
    """Its layer, `next` for the layer after (default: the same layer)."""
    version: Literal["previous"] | None = None
    """previous: its previous published version."""

    @model_validator(mode="after")
    def _not_itself(self) -> "ComparisonSettings":
        if self.with_study is None and self.layer is None and self.version is None:
            raise ValueError("an SAE is not compared with itself: give with, layer or version")
        return self
