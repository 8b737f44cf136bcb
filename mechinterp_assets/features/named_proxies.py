"""The proxies of a study as the objects that measure them. Belongs here: that translation."""

from collections.abc import Sequence

from mechinterp_assets.features.proxies import (
    WINDOW,
    AnyByInduction,
    InTokens,
    MatchesContext,
    NextByInduction,
    PromotedByInduction,
    Proxy,
)
from mechinterp_assets.features.settings import ProxySettings


def named_proxies(settings: Sequence[ProxySettings]) -> list[Proxy]:
    """The proxies that a study names; whether its tokenizer has their tokens is not checked."""
    return [_proxy(one) for one in settings]


def _proxy(settings: ProxySettings) -> Proxy:
    if settings.tokens is not None:
        return InTokens(settings.name, tuple(settings.tokens))
    if settings.regex is not None:
        return MatchesContext(settings.name, settings.regex, settings.window or WINDOW)
    if settings.next_by_induction is not None:
        return NextByInduction(settings.name, settings.next_by_induction)
    if settings.promoted_by_induction is not None:
        return PromotedByInduction(settings.name)
    return AnyByInduction(settings.name)
