"""The proxies of a study file as the objects that measure them. Belongs here: that translation."""

from mechinterp_assets.features.proxies import (
    WINDOW,
    AnyByInduction,
    InTokens,
    MatchesContext,
    NextByInduction,
    PromotedByInduction,
    Proxy,
)
from mechinterp_assets.features.settings import ProxySection
from mechinterp_assets.studies.study import Study


def study_proxies(study: Study) -> list[Proxy]:
    """The proxies that a study names; whether its tokenizer has their tokens is not checked."""
    return [_proxy(section) for section in study.features.proxies]


def _proxy(section: ProxySection) -> Proxy:
    if section.tokens is not None:
        return InTokens(section.name, tuple(section.tokens))
    if section.regex is not None:
        return MatchesContext(section.name, section.regex, section.window or WINDOW)
    if section.next_by_induction is not None:
        return NextByInduction(section.name, section.next_by_induction)
    if section.promoted_by_induction is not None:
        return PromotedByInduction(section.name)
    return AnyByInduction(section.name)
