"""The settings of features: what is kept of each, proxies, comparisons of SAEs.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mechinterp_assets.settings.section import Positive, Section


class ProxySection(Section):
    """A rule that stands for what features mean, under a `name`; exactly one kind.

    `tokens`: the current token is one of these (as in the table vocabulary, with their spaces).
    `regex`: found in the text of the last `window` tokens (16) up to and including the current one,
    from the last BOS on; Rust's regex syntax; end it with $ to tie it to the current token.
    `next_by_induction`: an earlier occurrence of the current token was followed by this token.
    `induction: true`: an earlier occurrence of the current token was followed by any token.
    `promoted_by_induction: true`: ... by the token that the feature itself promotes most.
    `features`: layer -> features compared with the proxy; layers left out have none. Default: all
    that fired.
    """

    name: Annotated[str, Field(min_length=1, max_length=80)]
    tokens: list[Annotated[str, Field(min_length=1)]] | None = None
    regex: Annotated[str, Field(min_length=1)] | None = None
    window: Positive | None = None
    next_by_induction: Annotated[str, Field(min_length=1)] | None = None
    induction: Literal[True] | None = None
    promoted_by_induction: Literal[True] | None = None
    features: dict[Annotated[int, Field(ge=0)], list[Annotated[int, Field(ge=0)]]] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "ProxySection":
        kinds = ("tokens", "regex", "next_by_induction", "induction", "promoted_by_induction")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"proxy {self.name!r}: give exactly one of {', '.join(kinds)} (given: {given})"
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


class ComparisonSection(Section):
    """Another SAE that each layer's SAE is matched with (table sae_matching).

    `with`: its study (default: this one). `layer`: its layer, `next` for the layer after (default:
    the same layer). `version: previous`: its previous published version. The previous version of a
    layer's own SAE is compared without being named, where one is still stored.
    """

    with_study: str | None = Field(default=None, alias="with")
    layer: Annotated[int, Field(ge=0)] | Literal["next"] | None = None
    version: Literal["previous"] | None = None

    @model_validator(mode="after")
    def _not_itself(self) -> "ComparisonSection":
        if self.with_study is None and self.layer is None and self.version is None:
            raise ValueError("an SAE is not compared with itself: give with, layer or version")
        return self


class FeatureSection(Section):
    """What is kept of each feature; the `pages` most often active of a layer get a page.

    Each of `intervals` activation intervals has `interval_examples` random examples and
    `interval_top_examples` strongest ones; `ngrams` n-grams are kept for each of n = 1, 2, 3, and
    `neighbours` other features each by co-activation and by decoder cosine.

    The first `dfa_examples` of the top examples have direct feature attribution, by head and by
    source; the first `dfa_matrix_examples` of those the whole head x source matrix.

    `proxies`: rules that each feature is compared with (feature_proxies).
    """

    max_tokens: Positive = 1_000_000
    top_examples: Positive = 20
    context_window: Positive = 24
    intervals: Positive = 10
    interval_examples: Positive = 5
    interval_top_examples: Positive = 5
    ngrams: Positive = 10
    neighbours: Positive = 10
    logit_tokens: Positive = 10
    dfa_examples: Positive = 20
    dfa_matrix_examples: Annotated[int, Field(ge=0)] = 2
    pages: Positive = 256
    proxies: list[ProxySection] = []

    @field_validator("proxies")
    @classmethod
    def _distinct_names(cls, proxies: list[ProxySection]) -> list[ProxySection]:
        names = [proxy.name for proxy in proxies]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"proxies share the name {', '.join(map(repr, twice))}; rename one")
        return proxies
