"""The settings of IOI prompts and of singular vector tracing.

Belongs here: their keys, defaults and the checks that concern them alone; no torch. Does not belong
here: checks across sections and against the model (studies/study.py).
"""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from mechinterp_assets.settings.section import Fraction, Positive, Section

Root = tuple[int, int] | tuple[int, int, Literal["IO", "S1", "S2"]]


class IoiSection(Section):
    """Indirect object identification: prompts and singular vector tracing (FC24).

    `roots` are [layer, head] at (END, IO), or [layer, head, S1 or S2]; or the name of a part of a
    published circuit of this model, such as "wang-2022-ioi: name mover", at (END, IO); auto takes
    the heads with the largest direct effect on the logit difference. `trace_variants` are rules
    traced beside the standard one (circuits/trace_variants.py); `near_threshold` is the least
    attention of a pair that nearly fires. `firing_score_min`: least score of a root pair, 0 as in
    FC24, or null: by attention alone; where the score is then negative, what raises it above the
    mean score of the other sources is traced (this project's rule; absolute positions only).
    `slice_contrast`: table ioi_slice_contrast. `usage_sequences` corpus sequences are compared
    with the prompts in slice usage. `consensus_nodes`: traced nodes whose consensus subspace is
    read. `reference_heads`: name -> [layer, head] pairs to compare the circuit with, beside
    published circuits of the same model. What is said of rules, thresholds and variants holds
    for the traces of other tasks too.
    """

    prompts: Positive = 128
    variants: list[str] = ["base", "ABC"]
    held_out_pairs: bool = False
    seed: int = 0
    roots: str | list[Root] = "auto"
    max_roots: Positive = 3
    firing_threshold: Fraction = 0.5
    firing_score_min: Literal[0] | None = 0
    contribution_fraction: Fraction = 0.7
    trace_variants: list[Literal["near", "negative", "all_slices", "fc24_code"]] = [
        "near",
        "negative",
        "all_slices",
        "fc24_code",
    ]
    near_threshold: Fraction = 0.25
    slice_contrast: bool = True
    usage_sequences: Positive = 64
    consensus_nodes: Positive = 12
    reference_heads: dict[str, list[tuple[int, int]]] = {}

    @field_validator("roots")
    @classmethod
    def _named_roots_exist(cls, roots: Any) -> Any:
        if isinstance(roots, str) and roots != "auto":
            from mechinterp_assets.circuits.reference_heads import part_names  # imports torch

            if roots not in (known := part_names()):
                raise ValueError(
                    f"give a list of [layer, head], auto, or one of {', '.join(known)}"
                )
        return roots

    @model_validator(mode="after")
    def _near_is_below_firing(self) -> "IoiSection":
        if "near" in self.trace_variants and self.near_threshold >= self.firing_threshold:
            raise ValueError(
                f"near_threshold {self.near_threshold} is not below firing_threshold "
                f"{self.firing_threshold}; lower it or leave near out of trace_variants"
            )
        return self

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, variants: list[str]) -> list[str]:
        from mechinterp_assets.prompts.ioi import VARIANTS  # imports torch

        unknown = sorted(set(variants) - set(VARIANTS))
        if unknown or "base" not in variants:
            raise ValueError(f"name base and any of {', '.join(VARIANTS)}")
        return variants
