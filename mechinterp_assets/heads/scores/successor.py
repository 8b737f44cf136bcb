"""Successor heads: from a token of an ordinal class to the next one.

Belongs here: the classes, which of their words are single tokens, and the score. Does not belong
here: features that promote successors (features/successors.py).

Source: Gould et al. 2023, "Successor Heads: Recurring, Interpretable Attention Heads In The Wild"
(arXiv 2312.09230), section 2.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mechinterp_assets.corpora.words import DAYS, LETTERS, MONTHS, NUMBER_WORDS, ORDINALS
from mechinterp_assets.heads.embeddings import first_mlp_output
from mechinterp_assets.heads.score_kinds import ModelScore, ScoreDatasets
from mechinterp_assets.heads.score_values import ScoreValues
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.model.language_model import LanguageModel

MINIMUM_TOKENS = 4


@dataclass(frozen=True)
class OrdinalClass:
    """Words in order; several chains share one class. A cycle's last word precedes its first."""

    name: str
    chains: tuple[tuple[str, ...], ...]
    cyclic: bool = False

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(word, successor), in order."""
        closed = [(*chain, chain[0]) if self.cyclic else chain for chain in self.chains]
        return [pair for chain in closed for pair in pairwise(chain)]


ORDINAL_CLASSES: tuple[OrdinalClass, ...] = (
    OrdinalClass("numbers", (tuple(str(number) for number in range(1000)),)),
    OrdinalClass("number words", (NUMBER_WORDS,)),
    OrdinalClass("ordinals", (ORDINALS,)),
    OrdinalClass("days", (DAYS,), cyclic=True),
    OrdinalClass("months", (MONTHS,), cyclic=True),
    OrdinalClass(
        "abbreviations",
        (tuple(day[:3] for day in DAYS), tuple(month[:3] for month in MONTHS)),
        cyclic=True,
    ),
    OrdinalClass("letters", (LETTERS,)),
)


@dataclass(frozen=True)
class TokenClass:
    """A class as tokens of one tokenizer: ids [member]; source, following [pair] index members."""

    name: str
    ids: Tensor
    source: Tensor
    following: Tensor


def token_classes(
    encode: Callable[[str], Sequence[int]],
    classes: Sequence[OrdinalClass] = ORDINAL_CLASSES,
    special: Collection[int] = (),
) -> list[TokenClass]:
    """Classes of which at least MINIMUM_TOKENS words are single tokens, without the other words.

    All words of a class are taken with a leading space or all without, whichever leaves more.
    A pair needs both its words. `special`: ids that stand for no word (unknown, BOS).
    """
    found = []
    for one in classes:
        words = list(dict.fromkeys(word for chain in one.chains for word in chain))
        forms = [_single_tokens(encode, words, space, special) for space in (" ", "")]
        ids = max(forms, key=len)
        member = {word: place for place, word in enumerate(ids)}
        pairs = [(member[a], member[b]) for a, b in one.pairs if a in member and b in member]
        if len(ids) < MINIMUM_TOKENS or not pairs:
            continue
        source, following = torch.tensor(pairs).T
        found.append(TokenClass(one.name, torch.tensor(list(ids.values())), source, following))
    return found


def successor(
    model: LanguageModel, settings: HeadSettings, datasets: ScoreDatasets
) -> ScoreValues | None:
    """Share of tokens of which the head raises the successor most within the class.

    For a token t of an ordinal class: MLP0(LN2(W_E)) W_V W_O W_U restricted to the class, whose
    largest entry should be the successor's (ties count against). Macro-average over classes, or
    numbers would decide alone. n: pairs of all classes. Processed weights.
    Null: a member of the class drawn uniformly for every pair, 1 / |class|; exact.
    None where no class has enough single tokens.
    """
    classes = token_classes(model.encode, special=model.special_ids)
    if not classes:
        return None
    weights, W_U = model.weights, model.weights.W_U
    shares, chances, variances = [], [], []
    for one in classes:
        ids = one.ids.to(model.device)
        read = first_mlp_output(model, one.ids[one.source])
        effect = torch.stack(
            [
                torch.einsum("td,hde->hte", read, W_V) @ (W_O @ W_U[:, ids])
                for W_V, W_O in zip(weights.W_V, weights.W_O, strict=True)
            ]
        )
        index = one.following.to(effect.device).expand(*effect.shape[:3])[..., None]
        hit = (effect >= effect.gather(3, index)).sum(dim=3) == 1
        shares.append(hit.double().mean(dim=2).cpu())
        chance = 1 / len(ids)
        chances.append(chance)
        variances.append(chance * (1 - chance) / len(one.source))
    value = torch.stack(shares).mean(dim=0)
    counted = ", ".join(f"{one.name} {len(one.ids)}" for one in classes)
    return ScoreValues(
        value=value,
        n=sum(len(one.source) for one in classes),
        null_mean=torch.full_like(value, sum(chances) / len(classes)),
        null_sd=torch.full_like(value, sum(variances) ** 0.5 / len(classes)),
        dataset=f"processed weights (single tokens: {counted})",
    )


def _single_tokens(
    encode: Callable[[str], Sequence[int]],
    words: Sequence[str],
    space: str,
    special: Collection[int],
) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        ids = encode(space + word)
        if len(ids) == 1 and ids[0] not in special and ids[0] not in found.values():
            found[word] = int(ids[0])
    return found


SCORES = (
    ModelScore(
        needs=("token_weights",),
        name="successor",
        definition="Share of members of ordinal classes (numbers, number words, ordinals, days, "
        "months, abbreviations of days and months, letters) of which MLP0(LN2(W_E)) W_V W_O W_U "
        "raises the successor most among the class; macro-average over classes with at least 4 "
        "single tokens. No rows where the tokenizer has no such class",
        value_range="0 to 1",
        terms="pairs of tokens",
        null_distribution="A member of the class drawn uniformly for every pair: 1 / size; exact",
        source="Gould et al. 2023, arXiv 2312.09230, section 2",
        threshold=0.4,
        compute=successor,
    ),
)
