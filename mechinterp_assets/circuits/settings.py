"""The section `ioi` of a study, and the rules of one trace.

Belongs here: their keys and the checks that concern them alone. Does not belong here: IOI prompts
(prompts/ioi.py), tracing (trace.py).
"""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mechinterp_assets.circuits.reference_heads import part_names
from mechinterp_assets.prompts.ioi import VARIANTS
from mechinterp_assets.settings.section import (
    Fraction,
    Index,
    Positive,
    PositiveShare,
    Section,
    Text,
)

RootHead = tuple[Index, Index] | tuple[Index, Index, Literal["IO", "S1", "S2"]]
MainRule = Literal["fc24", "relative"]
RuleName = Literal["near", "negative", "all_slices", "fc24_code", "fc24", "relative"]
AccRule = Literal["acc", "acc++"]


class TraceKeys(Section):
    """What a study says of every trace (FC24)."""

    firing_threshold: PositiveShare = 0.5
    """Least attention of a firing pair."""
    trace_rule: MainRule = "fc24"
    """One rule for all pairs of a trace. fc24: a pair fires with enough attention and a score of at
    least 0, and its score is traced (Franco & Crovella 2024). relative: it fires by attention
    alone, and the score minus the mean score of the destination's other sources is traced, writers
    told apart by the token that they wrote at (relative attention, as in ACC by the same authors;
    softmax sees scores only relative to one another)."""
    contribution_fraction: PositiveShare = 0.7
    """Share of all heads' contributions that kept heads reach."""
    slice_contrast: bool = True
    """Table attention_slice_contrast: kept heads beside those of all slices."""

    @property
    def any_score(self) -> bool:
        """Whether pairs fire by attention alone."""
        return self.trace_rule == "relative"


class TraceSettings(TraceKeys):
    """Rules of one trace: what a study says, and what distinguishes variants."""

    keep_all: bool = False
    """A row for every head of every traced pair, not for kept heads alone."""
    other_writers: bool = True
    """Rows for embedding, position, MLPs and biases."""
    memory_mib: Positive = 512
    """Bound on the residual streams held at once."""
    near: Fraction | None = None
    """Trace root pairs that nearly fire, attention in [near, firing_threshold), in place of those
    that do; upstream of them the firing rule holds."""
    sign: Literal["positive", "negative"] = "positive"
    """negative keeps the heads whose negative contributions reach contribution_fraction of the sum
    of all negative ones."""
    every_slice: bool = False
    """S is all slices."""
    fc24_code: bool = False
    """The published code's contributions, with a 1 appended to every head's output, and its path
    multiplicities; what equation 8 says is left out of edges then."""

    @model_validator(mode="after")
    def _near_is_below_firing(self) -> "TraceSettings":
        if self.near is not None and self.near >= self.firing_threshold:
            raise ValueError(
                f"near is {self.near}; attention of a pair that nearly fires lies above 0 and "
                f"below the threshold {self.firing_threshold}"
            )
        return self


class IoiSettings(TraceKeys):
    """Indirect object identification: prompts and singular vector tracing (FC24).

    What is said of rules, thresholds and variants holds for the traces of other tasks too.
    """

    prompts: Positive = 128
    """Base prompts, and as many of each variant."""
    variants: list[str] = ["base", "ABC"]
    """Forms of each prompt, base among them; ABC has three different names."""
    held_out_pairs: bool = False
    """Pairs of names that structured text never has together."""
    seed: int = 0
    """Seed of the prompts."""
    chat_template: bool = False
    """true: prompts begin the assistant's turn of a chat, in the tokenizer's chat template."""
    chat_request: Text = "Continue the text."
    """What the user of that chat says before."""
    roots: str | list[RootHead] = "auto"
    """[layer, head] at (END, IO), or [layer, head, S1 or S2]; or the name of a part of a published
    circuit of this model, such as "wang-2022-ioi: name mover", at (END, IO); auto takes the heads
    with the largest direct effect on the logit difference."""
    max_roots: Positive = 3
    """Roots that auto takes, for other tasks too."""
    trace_variants: list[RuleName] = ["near", "negative", "all_slices", "fc24_code"]
    """Rules traced beside trace_rule: changes of it (near, negative, all_slices), the published
    code's (fc24_code), or the other main rule (circuits/trace_variants.py)."""
    near_threshold: Fraction = 0.25
    """Least attention of a pair that nearly fires."""
    tracers: list[AccRule] = ["acc", "acc++"]
    """Tracers beside FC24's, its authors' later ones: acc, acc++ (circuits/acc.py)."""
    tracer_seeds: Literal["roots", "log_p"] = "roots"
    """Where these begin: at the root pairs of FC24's trace, or at the heads that carry 80% of the
    answer's log probability (for models too whose roots cannot be found)."""
    tracer_prompts: Positive = 16
    """Base prompts of each traced task that these trace."""
    usage_sequences: Positive = 64
    """Corpus sequences compared with the prompts in slice usage."""
    consensus_nodes: Positive = 12
    """Traced nodes whose consensus subspace is read."""
    reference_heads: dict[str, list[tuple[Index, Index]]] = Field(default_factory=dict)
    """Name -> [layer, head] pairs to compare the circuit with, beside published circuits of the
    same model."""

    @field_validator("roots")
    @classmethod
    def _named_roots_exist(cls, roots: Any) -> Any:
        if isinstance(roots, str) and roots != "auto" and roots not in (known := part_names()):
            raise ValueError(f"give a list of [layer, head], auto, or one of {', '.join(known)}")
        return roots

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, variants: list[str]) -> list[str]:
        unknown = sorted(set(variants) - set(VARIANTS))
        if unknown or "base" not in variants or len(set(variants)) < len(variants):
            raise ValueError(f"name base and any of {', '.join(VARIANTS)}, each once")
        return variants

    @field_validator("reference_heads")
    @classmethod
    def _lists_have_heads(
        cls, lists: dict[str, list[tuple[int, int]]]
    ) -> dict[str, list[tuple[int, int]]]:
        for name, heads in lists.items():
            if not heads:
                raise ValueError(f"{name}: name at least one [layer, head]")
        return lists

    @model_validator(mode="after")
    def _near_is_below_firing(self) -> "IoiSettings":
        if "near" in self.trace_variants and self.near_threshold >= self.firing_threshold:
            raise ValueError(
                f"near_threshold {self.near_threshold} is not below firing_threshold "
                f"{self.firing_threshold}; lower it or leave near out of trace_variants"
            )
        return self

    @model_validator(mode="after")
    def _variants_are_others(self) -> "IoiSettings":
        if self.trace_rule in self.trace_variants:
            raise ValueError(
                f"trace_variants names {self.trace_rule}, which trace_rule has already; leave it "
                "out of one of them"
            )
        return self

    @property
    def rules(self) -> TraceSettings:
        """The main rule of traces."""
        return TraceSettings(**{name: getattr(self, name) for name in TraceKeys.model_fields})
