"""cfg.json of SAE folders as other programs and other years wrote it, in the form that io.py reads.

Belongs here: what their keys mean, which of them change what the weights are, and which are not
read. Does not belong here: our own folders, weights (io.py), whether an SAE fits (external.py).

The form is SAELens's since version 6. Earlier versions kept the hook and the model beside the sizes
and wrote a TopK SAE as `architecture: standard` with `activation_fn_str: topk`. The SAEs of K24
have a `_cfg.json` of their own beside a .pt file, whose weights are those of `standard`.
"""

from collections.abc import Mapping
from typing import Any

from mechinterp_assets.sae.errors import SaeError

# Where earlier versions of SAELens wrote what is now in `metadata`, newest name first.
_MOVED = {
    "hook_name": ("hook_name", "hook_point"),
    "hook_head_index": ("hook_head_index", "hook_point_head_index"),
    "model_name": ("model_name",),
    "context_size": ("context_size",),
    "prepend_bos": ("prepend_bos",),
    "dataset_path": ("dataset_path",),
}
# K24's names of them, and of the sizes.
_K24 = {"act_name", "act_size", "dict_size"}
_K24_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Keys that say nothing of what the weights compute: how they were trained, stored and found.
_WITHOUT_EFFECT = frozenset(
    {
        *("d_in", "d_sae", "dtype", "device", "metadata", "architecture", "k"),
        *("apply_b_dec_to_input", "normalize_activations", "rescale_acts_by_decoder_norm"),
        *("hook_layer", "hook_point_layer", "sae_lens_version", "sae_lens_training_version"),
        *("neuronpedia_id", "dataset_trust_remote_code", "model_from_pretrained_kwargs"),
        *("model_kwargs", "model_class_name", "seqpos_slice", "use_error_term", "seed", "lr"),
        *("l1_coefficient", "l1_warm_up_steps", "lp_norm", "noise_scale", "mse_loss_normalization"),
        *("decoder_init_norm", "decoder_heuristic_init", "init_encoder_as_decoder_transpose"),
        *("normalize_sae_decoder", "use_ghost_grads", "aux_loss_coefficient", "l0_coefficient"),
        *("decoder_orthogonal_init", "b_dec_init_method"),
        *("expansion_factor", "from_pretrained_path", "training_tokens", "checkpoint_path"),
        *("jumprelu_init_threshold", "jumprelu_bandwidth", "topk_threshold_lr"),
        *("scale_sparsity_penalty_by_decoder_norm", "exclude_special_tokens"),
        "use_sparse_activations",
    }
)


def in_one_form(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A foreign cfg.json as SAELens 6 would have written it.

    where: what errors call the file. Raises SaeError for keys that change what the weights compute
    and cannot be taken into account.
    """
    if _is_k24(config):
        return _from_k24(config)
    found = dict(config)
    metadata = found.get("metadata")
    if metadata is None or isinstance(metadata, dict):  # anything else is io.py's to refuse
        moved = dict(metadata or {})
        for name, others in _MOVED.items():
            for other in others:
                if other in found:
                    moved.setdefault(name, found.pop(other))
        found["metadata"] = moved or metadata
    if isinstance(scaled := found.get("normalize_activations"), bool):
        found["normalize_activations"] = "expected_average_only_in" if scaled else "none"
    _activation_function(found, where)
    _refuse_other_meanings(found, where)
    return found


def unread_keys(config: Mapping[str, Any]) -> list[str]:
    """Keys of a foreign cfg.json of which nothing is known: they may change what is computed."""
    if _is_k24(config):
        return []
    known = _WITHOUT_EFFECT | {name for others in _MOVED.values() for name in others}
    read = {"activation_fn", "activation_fn_str", "activation_fn_kwargs", *_NEUTRAL}
    return sorted(set(config) - known - read)


# ---- private -------------------------------------------------------------------------------------

# Keys with the values under which the weights mean what they do here.
_NEUTRAL: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "finetuning_scaling_factor": (
        (None, False),
        "its activations are multiplied by another tensor",
    ),
    "reshape_activations": ((None, "none", "hook_z"), "it reads activations in another shape"),
    "hook_head_index": ((None,), "it is for one head, not for all heads of a layer in a row"),
    "d_out": ((None,), "it is a transcoder, which reconstructs another activation"),
    "hook_name_out": ((None,), "it is a transcoder, which reconstructs another activation"),
}


def _is_k24(config: Mapping[str, Any]) -> bool:
    return "architecture" not in config and all(name in config for name in _K24)


def _from_k24(config: Mapping[str, Any]) -> dict[str, Any]:
    dtype = config.get("enc_dtype", "fp32")
    return {
        "architecture": "standard",
        "d_in": config["act_size"],
        "d_sae": config["dict_size"],
        "dtype": _K24_DTYPES.get(str(dtype), dtype),
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {
            "model_name": config.get("model_name", ""),
            "hook_name": config["act_name"],
            "context_size": config.get("seq_len"),
            "prepend_bos": True,
            "dataset_path": config.get("dataset", ""),
        },
    }


def _activation_function(config: dict[str, Any], where: str) -> None:
    """The architecture that an older file names by its activation function."""
    function = config.pop("activation_fn_str", None)
    function = config.pop("activation_fn", None) if function is None else function
    given = config.pop("activation_fn_kwargs", None)
    architecture = config.setdefault("architecture", "standard") if function else None
    if function == "topk":
        if architecture not in ("standard", "topk"):
            raise SaeError(
                f"{where} says both architecture {architecture!r} and activation_fn_str 'topk'; "
                "correct the one that is wrong"
            )
        config["architecture"] = "topk"
        if isinstance(given, dict) and "k" in given:
            if config.get("k", given["k"]) != given["k"]:
                raise SaeError(
                    f"{where} gives k = {config['k']!r:.80} and, in activation_fn_kwargs, "
                    f"{given['k']!r:.80}; correct the one that is wrong"
                )
            config["k"] = given["k"]
    elif function == "relu":
        if architecture == "topk":
            raise SaeError(
                f"{where} says both architecture 'topk' and activation_fn_str 'relu'; correct the "
                "one that is wrong"
            )
    elif function is not None:
        raise SaeError(
            f"{where} has activation_fn_str {function!r:.80}, which is neither relu nor topk; "
            "nothing here computes it"
        )


def _refuse_other_meanings(config: Mapping[str, Any], where: str) -> None:
    architecture, metadata = config.get("architecture"), config.get("metadata")
    said = {**config, **(metadata if isinstance(metadata, dict) else {})}
    for name, (neutral, meaning) in _NEUTRAL.items():
        if said.get(name) not in neutral:
            raise SaeError(
                f"{where} has {name} = {said[name]!r:.80}: {meaning}; give an SAE without it"
            )
    if architecture == "standard" and config.get("k") is not None:
        raise SaeError(
            f"{where} says architecture 'standard' and k = {config['k']!r:.80}, which a standard "
            "SAE has not; write 'topk' if it is one, or remove k"
        )
    if architecture not in ("topk", None) and config.get("rescale_acts_by_decoder_norm"):
        raise SaeError(
            f"{where} has rescale_acts_by_decoder_norm = true for architecture {architecture!r}; "
            "fold the norms of decoder rows into the weights first, as SAELens does when it saves"
        )
