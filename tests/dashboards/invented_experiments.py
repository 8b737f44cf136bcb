"""Rows of a study's experiments whose every text is hostile, in a lake of their own.

A study "odd" with an experiment of every kind, and circuits; a study "bare" with none.
"""

from pathlib import Path
from typing import Any

from filled_rows import filled_rows
from hostile_layer import ATTACK

from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.provenance import Provenance

STUDY, BARE = "odd", "bare"
TASK = f"ioi{ATTACK}"
QK = {"task": TASK, "layer": 4, "head": 1, "source_role": f"IO {ATTACK}", "n": 8}
PATCHING = {"kind": "activation_patching", "mode": "noise", "site": "attn_out"}
EDGE = {
    "kind": "edge",
    "upstream_layer": 1,
    "destination_role": "END",
    "source_role": "IO",
    "side": "destination",
    "layer": 3,
    "head": 2,
}


def provenance(study: str = STUDY) -> Provenance:
    """Of everything here."""
    return Provenance(study=study, run_id=f"run {ATTACK}", code_version="0")


def lake(root: Path) -> Lake:
    """A lake with the study's tables."""
    made = Lake(root)
    summary = [
        _row(name, effect, **fields) for _, name, effect, fields in _interventions() if fields
    ]
    experiments = [
        {"experiment": experiment, "intervention": name, "part": f"{name} {ATTACK}"}
        for experiment, name, _, _ in _interventions()
    ]
    experiments.append({"experiment": "unrun", "chosen_by": f"not run: {ATTACK}"})
    tables: dict[str, list[dict[str, Any]]] = {
        "intervention_summary": summary,
        "intervention_experiments": [
            {
                "task": TASK,
                "paper": f"K24 {ATTACK}",
                "question": f"Why? {ATTACK}",
                "chosen_by": f"by {ATTACK}",
                **row,
            }
            for row in experiments
        ],
        "intervention_plan": [
            {
                "task": TASK,
                "asked_by": "interventions.published.unrun",
                "decision": "left out",
                "reason": f"nothing to run {ATTACK}",
            },
            *(
                {
                    "task": TASK,
                    "asked_by": "interventions.edges",
                    "intervention": f"edge {number}",
                    "decision": "changed",
                    "reason": "heads of a group",
                }
                for number in (1, 2)
            ),
        ],
        "intervention_results": [
            {
                "task": TASK,
                "prompt": prompt,
                "intervention": name,
                "kind": "edge",
                "scope": "local",
                "mode": "boost" if "boost" in name else "ablate",
                "is_control": False,
                "metric": metric,
                "clean": 2.0,
                "patched": 2.0 + effect,
                "cosine": 0.9,
                "norm_ratio": 1.2,
            }
            for _, name, effect, _ in _interventions()
            if name.startswith(("edge", "set"))
            for metric in ("logit_diff", "kl")
            for prompt in (0, 1)
        ],
        "intervention_sets": [
            {
                **EDGE,
                "task": TASK,
                "intervention": "set:parallel:both",
                "member": member,
                "member_id": f"edge {member} ablate",
                "mode": "ablate",
                "scope": "local",
                "upstream_head": member,
            }
            for member in (0, 1)
        ],
        "circuit_faithfulness": [
            {
                "task": TASK,
                "ranking": ranking,
                "ranked_by": "signed",
                "seed": seed,
                "edge_fraction": k,
                "n_edges": int(100 * k),
                "n_connected": 1,
                "faithfulness": value,
                "n_prompts": 4,
            }
            for ranking, seeds in ((ATTACK, (0,)), ("random", (0, 1)))
            for seed in seeds
            for k, value in ((0.01, 0.0), (0.1, 40.0), (1.0, 1.0 - 0.5 * seed))
        ],
        "component_reuse_faithfulness": [
            {
                "heads_of": of,
                "measured_on": on,
                "metric": "loss",
                "n_kept": 2,
                "faithfulness": None if of != on else -0.5,
                "random_faithfulness": 0.1,
            }
            for of in (ATTACK, "b")
            for on in (ATTACK, "b")
        ],
        "qk_feature_pairs": [
            {
                **QK,
                "chosen_by": ATTACK,
                "query_kind": ATTACK,
                "key_kind": "feature",
                "key_layer": 1,
                "key_feature": rank,
                "rank": rank,
                "mean": 0.5 - rank,
                "sd": 0.1,
                "n_part_pairs": 1,
                "mean_score": 3.0,
                "identity_error": 0.0,
            }
            for rank in (0, 1, 30)
        ],
        "qk_feature_summary": [
            {
                **QK,
                "chosen_by": ATTACK,
                "ordered_by": "mean",
                "n_top_pairs": k,
                "n_part_pairs": 2,
                "mean_score": 3.0,
                "sd_score": 1.0,
                "mean_attention": 0.5,
                "mean_part": 1.0,
                "variance_explained_held_out": value,
                "identity_error": 0.0,
            }
            for k, value in ((1, -7.0), (2, None), (4, 0.5))
        ],
        "attention_slices": [
            {
                "task": "ioi",
                "prompt": prompt,
                "layer": 1,
                "head": 2,
                "destination": 3,
                "source": 1,
                "destination_role": ATTACK,
                "source_role": "IO",
                "trace_rule": "fc24",
                "fires": fires,
                "is_root": True,
                "attention": 0.75,
                "attention_score": 2.0,
                "slices": [0],
                "n_slices": 1,
                "slice_sum": 2.5,
                "slice_terms": [2.5, -0.5],
                "relative_identity_error": 0.0,
            }
            for prompt, fires in ((0, True), (1, False))
        ],
        "attention_slice_counts": [
            {"text_source": text, "layer": 0, "head": 0, "n_slices": n, "n_pairs": 10 * n}
            for text in ("ioi", "corpus")
            for n in (1, 2)
        ],
        "attention_slice_usage": [
            {
                "text_source": "ioi",
                "layer": 0,
                "head": 1,
                "slice": k,
                "fires": fires,
                "n_pairs": 7,
                "selected_share": 0.5 * fires,
                "mean_term": 1.0,
                "mean_term_share": 0.1,
            }
            for k in (0, 1)
            for fires in (True, False)
        ],
        "attention_slice_contrast": [
            {
                "task": "ioi",
                "prompt": 0,
                "layer": 1,
                "head": 2,
                "destination": 3,
                "source": 1,
                "destination_role": ATTACK,
                "source_role": "IO",
                "side": side,
                "trace_rule": "fc24",
                "n_slices": 2,
                "n_kept": 1,
                "n_kept_all_slices": 2,
                "n_kept_both": 1,
                "effective_heads": 1.5,
                "effective_heads_all_slices": 3.0,
                "correlation": None,
            }
            for side in ("destination", "source")
        ],
        "attention_consensus": [
            {
                "task": "ioi",
                "layer": 1,
                "head": 2,
                "destination_role": ATTACK,
                "source_role": "IO",
                "trace_rule": "fc24",
                "slice": 0,
                "singular_value": 2.0,
                "n_pairs": 4,
                "selected_share": 1.0,
                "sign_consistency": 1.0,
                "in_consensus": True,
            }
        ],
        "attention_slice_writers": [
            {
                "task": "ioi",
                "layer": 1,
                "head": 2,
                "destination_role": ATTACK,
                "source_role": "IO",
                "prompt": 0,
                "destination": 3,
                "source": 1,
                "side": "source",
                "upstream_layer": 0,
                "upstream_head": head,
                "contribution": 1.0 - head,
                "contribution_all_slices": 2.0,
            }
            for head in (0, 1)
        ],
        "attention_token_norms": [
            {
                "task": "ioi",
                "layer": 1,
                "head": 2,
                "destination_role": ATTACK,
                "source_role": "IO",
                "token_id": token,
                "n_dimensions": 1,
                "at_source": token == 0,
                "n": 4,
                "mean_projection": 2.0 - token,
                "sd_projection": 0.5,
            }
            for token in (0, 1)
        ],
        "vocabulary": [{"token_id": token, "token": f"{token} {ATTACK}"} for token in (0, 1)],
        "attention_token_signal": [
            {
                "task": "ioi",
                "layer": 1,
                "head": 2,
                "destination_role": ATTACK,
                "source_role": "IO",
                "side": side,
                "position_role": role,
                "n": 4,
                "trace_rule": "fc24",
                "n_dimensions": 1,
                "mean_signal": -1.5,
                "sd_signal": 0.5,
            }
            for side in ("destination", "source")
            for role in ("END", ATTACK)
        ],
        "prefix_induction": [
            {"layer": 0, "head": head, "prefix_length": p, "mean_attention": 0.95 * head, "n": 5}
            for head in (0, 1)
            for p in (1, 2, 3)
        ],
    }
    frames = {table: filled_rows(table, rows) for table, rows in tables.items()}
    made.write_many(frames, STUDY, provenance())
    return made


def _interventions() -> list[tuple[str, str, float, dict[str, Any]]]:
    """Experiment, intervention, effect, fields of its summary row."""
    noising = [
        (
            "noising",
            f"noise {variant} {reference}",
            -0.5,
            {
                **PATCHING,
                "layer": 2,
                "position_role": "S2",
                "source_variant": f"{variant} {ATTACK}",
                "ablated_run": reference,
                "recovered_from_ablated": share,
                "recovered_from_ablated_ci_low": share - 0.1,
                "recovered_from_ablated_ci_high": share + 0.1,
            },
        )
        for variant, share in (("with", 0.9), ("swap", 0.2))
        for reference in ("zero:attn_out:L2:S2", "zero:attn_out:L2:all")
    ]
    features = [
        (
            "features",
            f"{kind} {feature}",
            effect,
            {"kind": kind, "layer": 1, "feature": feature, "position_role": f"S2 {ATTACK}"},
        )
        for kind in ("sae_feature_ablation", "sae_feature_path")
        for feature, effect in ((3, -0.4), (7, float("nan")))
    ]
    edges = [
        (
            "edges",
            f"edge {head} {mode}",
            effect,
            {**EDGE, "upstream_head": head, "mode": mode, "scope": "local"},
        )
        for head in (0, 1)
        for mode, effect in (("ablate", -0.3), ("boost", 0.25))
    ]
    splice = {"kind": "sae_splice", "layer": 0, "ablated_run": "mean_counterfactual:z:L0:all:raw"}
    return [
        *noising,
        *features,
        *edges,
        ("splicing", "splice 0", -0.1, splice),
        ("together", "set:parallel:both", -0.7, {"kind": "set", "mode": None}),
        ("fc24_magnitudes", "edge 0 boost", 0.25, {}),
        ("other", "scaled", -0.2, {"kind": "head_scaling", "layer": 0, "head": 0}),
        ("lost", "never run", 0.0, {}),
    ]


def _row(name: str, effect: float, **fields: Any) -> dict[str, Any]:
    return {
        "task": TASK,
        "intervention": name,
        "metric": "logit_diff",
        "is_control": False,
        "n": 8,
        "mean_clean": 2.0,
        "mean_patched": 2.0 + effect,
        "mean_effect": effect,
        "ci_low": effect - 0.1,
        "ci_high": effect + 0.1,
        "mean_cosine": 0.99,
        "mean_norm_ratio": 1.01,
        **fields,
    }
