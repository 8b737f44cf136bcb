"""SAE folders that another program wrote: what is adopted, folded, warned of and refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp_assets.activations.harvest import capture_z
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.value_offset import value_offset
from mechinterp_assets.sae.architectures.gated import GatedSAE
from mechinterp_assets.sae.architectures.jumprelu import JumpReLUSAE
from mechinterp_assets.sae.architectures.standard import StandardSAE
from mechinterp_assets.sae.architectures.topk import TopKSAE
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.errors import SaeError
from mechinterp_assets.sae.external import (
    Expectation,
    ExternalSae,
    Fit,
    adoption_rows,
    check_fits,
    external_row,
    measure_fit,
    read_external,
)
from mechinterp_assets.sae.folder import CONFIG, WEIGHTS
from mechinterp_assets.sae.io import (
    SaeMetadata,
    check_compatible,
    load_sae,
    read_metadata,
    save_sae,
)
from mechinterp_assets.sae.normalization import SCALER, WHITENING
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.table_spec import polars_schema

LAYER, CONTEXT = 2, 24


@pytest.fixture(scope="module")
def rows(organism: LanguageModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, organism.config.d_vocab, (12, CONTEXT), generator=generator)
    return capture_z(organism, ids, [LAYER])[LAYER].flatten(0, 1)


def _foreign(folder: Path, sae: SparseAutoencoder, **changes: Any) -> Path:
    """A folder as SAELens writes it: ours without our own metadata."""
    metadata = SaeMetadata("organism", LAYER, None, None, CONTEXT, None, None, dataset="somewhere")
    save_sae(folder, sae, metadata)
    config = json.loads((folder / CONFIG).read_text())
    del config["metadata"]["mechinterp"]
    for name, value in changes.items():
        (config["metadata"] if name in config["metadata"] else config)[name] = value
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def _identity(rows: Tensor, keep: int) -> StandardSAE:
    """Reconstructs the first `keep` dimensions of x, and the mean elsewhere."""
    d = rows.shape[1]
    eye = torch.eye(d)[:, :keep]
    W_enc = torch.cat([eye, -eye], 1)
    return StandardSAE(W_enc, torch.zeros(2 * keep), W_enc.T.contiguous(), rows.mean(0))


@dataclass(frozen=True)
class Elsewhere:
    """An SAE as another program may have trained it, and z that it was trained for.

    z [n, d_z] are positive sums of exactly 4 of 256 directions, each of which lies in two heads.
    """

    sae: TopKSAE
    z: Tensor


K, HEADS = 4, 8


@pytest.fixture(scope="module")
def elsewhere(organism: LanguageModel) -> Elsewhere:
    return _planted(organism, seed=0)


def _planted(model: LanguageModel, seed: int) -> Elsewhere:
    generator = torch.Generator().manual_seed(seed)
    n, d_sae, heads, d_head = 4000, 256, model.config.n_heads, model.config.d_head
    assert heads == HEADS
    active = torch.rand(d_sae, heads, generator=generator).topk(2, dim=1).indices
    blocks = torch.zeros(d_sae, heads).scatter_(1, active, 1.0)
    dictionary = torch.randn(d_sae, heads, d_head, generator=generator) * blocks[:, :, None]
    dictionary = dictionary.flatten(1)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    chosen = torch.rand(n, d_sae, generator=generator).topk(K, dim=1).indices
    codes = torch.zeros(n, d_sae).scatter_(1, chosen, 1.0) * 3
    codes *= 1 + torch.rand(n, d_sae, generator=generator)
    mean = torch.randn(heads * d_head, generator=generator) / 3
    encoder = dictionary.T.contiguous()
    sae = TopKSAE(encoder, torch.zeros(d_sae), dictionary, mean, K)
    return Elsewhere(sae, codes @ dictionary + mean)


def _read(folder: Path, model: LanguageModel) -> ExternalSae:
    return read_external(folder, model, LAYER, context_size=CONTEXT)


def _fit(external: ExternalSae, z: Tensor, offset: Tensor | None = None, **expected: Any) -> Fit:
    nothing = torch.zeros(z.shape[1]) if offset is None else offset
    return measure_fit(external, z, nothing, HEADS, Expectation(**expected))


def test_an_external_sae_is_adopted(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    sae, z = elsewhere.sae, elsewhere.z
    folder = _foreign(tmp_path / "theirs", sae)
    external = _read(folder, organism)
    assert external.warnings == ()
    fit = _fit(external, z, l0=4.0, folder_hash=external.folder_hash)
    check_fits(external, fit)
    assert fit.objections == fit.warnings == ()
    assert fit.chosen.fvu < 0.1
    assert torch.equal(fit.sae(z), sae(z))

    row = external_row(LAYER, external, fit, "attention_sae/organism.L02")
    assert row.schema == polars_schema(table_spec("attention_sae"))
    assert row["external_folder"].item() == str(folder)
    assert row["external_warnings"].item() is None
    assert row["training_tokens"].item() is None
    assert row["trained_on"].item() == "raw"
    readings = adoption_rows(LAYER, fit)
    assert readings.schema == polars_schema(table_spec("sae_adoption"))
    assert readings.filter("adopted")["reading"].to_list() == ["raw"]
    fvu = dict(readings.filter(pl.col("n_largest").is_null()).select("reading", "fvu").iter_rows())
    assert fvu["raw"] < 0.1 < 0.9 < fvu["permuted_heads"]

    own = tmp_path / "ours"
    save_sae(own, fit.sae, external.adopted(organism, LAYER, CONTEXT, fit.chosen.name))
    metadata = read_metadata(own)
    check_compatible(metadata, organism.config, organism.weights_hash, organism.tokenizer_hash)
    assert metadata.training["external"]["folder_hash"] == external.folder_hash
    assert metadata.training["external"]["trained_on"] == "raw"
    assert metadata.dataset == "somewhere"
    assert load_sae(own).weights_hash() == sae.weights_hash()


def test_the_readings_are_what_their_names_say(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Each against the SAE written out, in float64."""
    sae, z = elsewhere.sae, elsewhere.z
    c = torch.linspace(-1, 1, z.shape[1])
    fit = _fit(_read(_foreign(tmp_path, sae), organism), z, c)
    found = {(one.name, one.k): one for one in fit.readings}
    few = z[:2048]

    def expected(x: Tensor, b_dec: Tensor, k: int = K) -> tuple[float, float, float]:
        pre = ((x - b_dec).double() @ sae.W_enc.double()).relu()
        values, index = pre.topk(k, dim=1)
        f = torch.zeros_like(pre).scatter_(1, index, values)
        r = x.double() - f @ sae.W_dec.double() - b_dec.double()
        variance = x.double().var(0, correction=0).sum()
        explained = 1 - r.var(0, correction=0).sum() / variance
        fvu = r.square().sum(1).mean() / variance
        return float(fvu), float(explained), float((f > 0).sum(1).double().mean())

    heads = few.view(len(few), HEADS, -1)
    rotated = torch.cat([heads[:, -1:], heads[:, :-1]], 1).flatten(1)
    scaled = few * (z.shape[1] ** 0.5 / z.norm(dim=1).mean())
    cases = {
        ("raw", None): expected(z, sae.b_dec),
        ("processed", None): expected(z, sae.b_dec + c),
        ("permuted_heads", None): expected(rotated, sae.b_dec),
        ("rescaled", None): expected(scaled, sae.b_dec),
        **{("largest_k", k): expected(few, sae.b_dec, k) for k in (1, 2, 4, 8, 16, 32)},
    }
    assert set(cases) == set(found)
    for key, values in cases.items():
        one = found[key]
        assert (one.fvu, one.explained_variance, one.l0) == pytest.approx(values, rel=1e-4), key
    assert found["processed", None].offset_norm == pytest.approx(float(c.norm()))
    assert found["raw", None].offset_norm == 0


@pytest.mark.parametrize("trained_on", ["auto", "processed"])
def test_an_sae_of_processed_weights_is_cured_exactly(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path, trained_on: str
) -> None:
    """Trained on z - c, the SAE does on z what it did there, and gives c back."""
    c = value_offset(organism, LAYER)
    external = _read(_foreign(tmp_path, elsewhere.sae), organism)
    raw = elsewhere.z + c
    fit = _fit(external, raw, c, trained_on=trained_on)
    check_fits(external, fit)
    assert fit.chosen.name == "processed"
    torch.testing.assert_close(
        fit.sae.encode(raw), elsewhere.sae.encode(elsewhere.z), rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(fit.sae(raw), elsewhere.sae(elsewhere.z) + c, rtol=1e-5, atol=1e-4)
    row = external_row(LAYER, external, fit, "x")
    assert row["trained_on"].item() == "processed"
    assert row["weights_hash"].item() == fit.sae.weights_hash() != elsewhere.sae.weights_hash()
    assert torch.equal(external.sae.b_dec, elsewhere.sae.b_dec)  # the folder's own stays


def test_explained_variance_is_blind_to_what_the_gate_sees(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """An offset that hardly changes which features are active costs no explained variance."""
    c = torch.full((elsewhere.z.shape[1],), 0.25)
    c[::2] *= -1
    external = _read(_foreign(tmp_path, elsewhere.sae), organism)
    fit = _fit(external, elsewhere.z + c, c, trained_on="raw")
    raw, processed = fit.readings[:2]
    assert raw.explained_variance > 0.8
    assert raw.fvu > 3 * processed.fvu
    with pytest.raises(SaeError, match=r"trained_on says raw, which leaves .* set it to processed"):
        check_fits(external, fit)


def test_weights_that_fit_alike_are_warned_of(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    external = _read(_foreign(tmp_path, elsewhere.sae), organism)
    fit = _fit(external, elsewhere.z, torch.full((elsewhere.z.shape[1],), 1e-3))
    assert fit.objections == ()
    assert len(fit.warnings) == 1
    assert fit.warnings[0].startswith("raw and processed weights fit nearly alike")
    warned = external_row(LAYER, external, fit, "x")["external_warnings"].item()
    assert warned == fit.warnings[0]


def _as_standard(sae: TopKSAE) -> StandardSAE:
    return StandardSAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)


def _with_k(sae: TopKSAE, k: int) -> TopKSAE:
    return TopKSAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, k)


MISLABELLED: dict[str, tuple[Callable[[Elsewhere], SparseAutoencoder], str]] = {
    "TopK saved as standard": (
        lambda one: _as_standard(one.sae),
        r"says standard, which leaves .* but the 4 largest alone leave 0\.0\d+: it is a TopK",
    ),
    "k too small": (
        lambda one: _with_k(one.sae, 1),
        r"says k = 1, which leaves 0\.[5-9]\d* .* but k = 4 leaves 0\.0",
    ),
    "k too large": (
        lambda one: _with_k(one.sae, 16),
        r"says k = 16, which leaves .* but k = 4 leaves 0\.0",
    ),
    "decoder of other units": (
        lambda one: StandardSAE(one.sae.W_enc, one.sae.b_enc, one.sae.W_dec * 5, one.sae.b_dec),
        r"leaves \d+\.\d+ of the variance .* may be at most 0\.5",
    ),
}


@pytest.mark.parametrize("case", list(MISLABELLED))
def test_a_mislabelled_sae_is_refused(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path, case: str
) -> None:
    make, message = MISLABELLED[case]
    external = _read(_foreign(tmp_path, make(elsewhere)), organism)
    fit = _fit(external, elsewhere.z, max_fvu=0.5 if "units" in case else 100.0)
    with pytest.raises(SaeError, match=message):
        check_fits(external, fit)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_fewer_features_do_not_speak_against_an_sae_that_uses_all(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path, architecture: str
) -> None:
    """Biases or thresholds that let the planted features through alone, as training finds them."""
    w, bound = elsewhere.sae, torch.full((256,), 2.8)
    sae = (
        StandardSAE(w.W_enc, -bound, w.W_dec, w.b_dec)
        if architecture == "standard"
        else JumpReLUSAE(w.W_enc, w.b_enc, w.W_dec, w.b_dec, bound)
    )
    external = _read(_foreign(tmp_path, sae), organism)
    assert _fit(external, elsewhere.z).objections == ()


def test_an_sae_of_another_layer_or_hook_is_refused(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Its folder says this layer's hook_z, its weights were made for something else."""
    external = _read(_foreign(tmp_path, _planted(organism, seed=1).sae), organism)
    with pytest.raises(SaeError, match=r"may be at most 0\.5 .*another layer, hook or model"):
        check_fits(external, _fit(external, elsewhere.z))


def test_a_normalisation_without_its_statistics_is_named(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Trained on scaled z, in a folder that says none: refused, and what to do about it works."""
    w, z = elsewhere.sae, elsewhere.z / 10
    scale = float(z.shape[1] ** 0.5 / z.norm(dim=1).mean())
    units = scale / 10  # of the planted codes, in which a bias of -2 lets no other feature through
    sae = StandardSAE(w.W_enc, torch.full((256,), -2.0 * units), w.W_dec, w.b_dec * units)
    folder = _foreign(tmp_path, sae)
    external = _read(folder, organism)
    with pytest.raises(
        SaeError, match=r"of z times 1\d\.\d+: .* expected_average_only_in in a copy"
    ):
        check_fits(external, _fit(external, z))
    config = json.loads((folder / CONFIG).read_text())
    config["normalize_activations"] = "expected_average_only_in"
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(SaeError, match=SCALER):
        _read(folder, organism)
    (folder / SCALER).write_text(json.dumps({"scaling_factor": scale}))
    assert _fit(_read(folder, organism), z).objections == ()


def test_an_sae_that_fits_any_order_of_heads_is_refused(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    d = elsewhere.z.shape[1]
    eye = torch.eye(d)
    W_enc = torch.cat([eye, -eye], 1)
    copies = StandardSAE(W_enc, torch.zeros(2 * d), W_enc.T.contiguous() * 0.9, torch.zeros(d))
    external = _read(_foreign(tmp_path, copies), organism)
    with pytest.raises(
        SaeError, match="heads in another order: it does not know these heads apart"
    ):
        check_fits(external, _fit(external, elsewhere.z))
    one_head = measure_fit(external, elsewhere.z, torch.zeros(d), 1, Expectation())
    assert one_head.objections == ()  # nothing to permute


def test_what_a_study_knows_of_an_sae_is_held_against_it(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    external = _read(_foreign(tmp_path, elsewhere.sae), organism)
    known = external.folder_hash
    assert _fit(external, elsewhere.z, l0=5.9, folder_hash=known).objections == ()
    assert _fit(external, elsewhere.z, l0=2.7).objections == ()
    with pytest.raises(
        SaeError, match=r"4\.0 features are active at a token, .*expected_l0 says 9"
    ):
        check_fits(external, _fit(external, elsewhere.z, l0=9.0))
    with pytest.raises(SaeError, match=rf"hash to {known}, sae\.expected_hash says {'0' * 16}"):
        check_fits(external, _fit(external, elsewhere.z, folder_hash="0" * 16))
    with pytest.raises(SaeError, match=r"may be at most 0\.001"):
        check_fits(external, _fit(external, elsewhere.z, max_fvu=0.001))


def test_activations_that_do_not_vary_are_no_proof(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    external = _read(_foreign(tmp_path, elsewhere.sae), organism)
    fit = _fit(external, elsewhere.z[:1].expand(50, -1))
    assert fit.chosen.fvu is None
    with pytest.raises(SaeError, match="leaves none of the variance"):
        check_fits(external, fit)


def test_fingerprints_of_another_model_are_refused(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    right = SaeMetadata.of(organism, LAYER, context_size=CONTEXT)
    save_sae(tmp_path / "right", elsewhere.sae, right)
    assert _read(tmp_path / "right", organism).warnings == ()
    for number, (changes, what) in enumerate(
        [
            ({"weights_hash": "0" * 16}, "weights 0000000000000000"),
            ({"tokenizer_hash": "1" * 16}, "tokenizer 1111111111111111"),
            ({"n_heads": 4, "d_head": 48}, "heads 4"),
        ]
    ):
        folder = tmp_path / str(number)
        save_sae(folder, elsewhere.sae, replace(right, **changes))
        with pytest.raises(SaeError, match=f"made with another model .*{what}"):
            _read(folder, organism)


def test_the_hash_of_a_folder_is_that_of_both_files(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    def hash_of(name: str, sae: StandardSAE, **changes: Any) -> str:
        folder = _foreign(tmp_path / name, sae, **changes)
        return read_external(folder, organism, LAYER, context_size=CONTEXT).folder_hash

    first = hash_of("a", _identity(rows, 8))
    assert hash_of("b", _identity(rows, 8)) == first
    assert hash_of("c", _identity(rows, 9)) != first
    assert hash_of("d", _identity(rows, 8), dataset_path="elsewhere") != first


def test_what_does_not_match_is_a_warning(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    folder = _foreign(
        tmp_path, _identity(rows, 8), model_name="gpt2-small", context_size=64, prepend_bos=False
    )
    external = read_external(folder, organism, LAYER, context_size=CONTEXT)
    assert [warning.split(",")[0] for warning in external.warnings] == [
        "trained on a model called gpt2-small",
        "trained on contexts of 64 tokens",
        "trained on sequences without BOS",
    ]
    fit = _fit(external, rows)
    warned = external_row(LAYER, external, fit, "x")["external_warnings"].item()
    assert warned.count("; ") == 2
    same = _foreign(tmp_path / "same", _identity(rows, 8), model_name="someone/Organism")
    assert read_external(same, organism, LAYER, context_size=CONTEXT).warnings == ()


def test_folders_that_do_not_fit_are_refused(
    organism: LanguageModel, rows: Tensor, tmp_path: Path
) -> None:
    sae = _identity(rows, 8)
    cases: list[tuple[str, SparseAutoencoder, dict[str, Any], str]] = [
        ("hook", sae, {"hook_name": "blocks.2.hook_resid_pre"}, "hook_resid_pre"),
        ("none", sae, {"metadata": None}, "hook ''"),
        ("layer", sae, {"hook_name": "blocks.1.attn.hook_z"}, "is for layer 1"),
        ("width", _identity(rows[:, :20], 8), {}, "has d_in 20"),
        ("norm", sae, {"normalize_activations": "layer_norm"}, "differs from token to token"),
        ("scale", sae, {"normalize_activations": "expected_average_only_in"}, SCALER),
        ("white", sae, {"normalize_activations": "covariance_whitening"}, WHITENING),
        ("kind", sae, {"architecture": "temporal"}, "unknown SAE architecture 'temporal'"),
    ]
    for name, wrong, changes, message in cases:
        folder = _foreign(tmp_path / name, wrong, **changes)
        with pytest.raises(SaeError, match=message):
            read_external(folder, organism, LAYER, context_size=CONTEXT)
    with pytest.raises(SaeError, match=r"has no cfg\.json"):
        read_external(tmp_path / "nowhere", organism, LAYER, context_size=CONTEXT)


def _random_saes(d: int, d_sae: int) -> dict[str, SparseAutoencoder]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    W_enc, W_dec = draw(d, d_sae), draw(d_sae, d)
    b_enc, b_dec = draw(d_sae), draw(d)
    return {
        "standard": StandardSAE(W_enc, b_enc, W_dec, b_dec),
        "topk": TopKSAE(W_enc, b_enc, W_dec, b_dec, k=5),
        "jumprelu": JumpReLUSAE(W_enc, b_enc, W_dec, b_dec, draw(d_sae).abs()),
        "gated": GatedSAE(W_enc, b_enc, draw(d_sae) / 4, draw(d_sae), W_dec, b_dec),
    }


@pytest.mark.parametrize("name", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("kind", ["expected_average_only_in", "covariance_whitening"])
def test_normalisation_is_folded(tmp_path: Path, name: str, kind: str) -> None:
    """The SAE of a checkpoint gives on x what its weights give on normalised x, taken back."""
    d = 10
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, d, generator=generator).double()
    sae = _random_saes(d, 40)[name]
    folder = _foreign(tmp_path, sae, normalize_activations=kind)
    if kind == "expected_average_only_in":
        matrix, mean = 3.5 * torch.eye(d).double(), torch.zeros(d).double()
        (folder / SCALER).write_text('{"scaling_factor": 3.5, "has_whitening": false}')
    else:
        matrix = torch.randn(d, d, generator=generator).double() + 3 * torch.eye(d)
        mean = torch.randn(d, generator=generator).double()
        inverse = torch.linalg.inv(matrix).contiguous()
        save_file({"mean": mean, "matrix": matrix, "inverse_matrix": inverse}, folder / WHITENING)
    normalised = ((x - mean) @ matrix).float()
    folded = load_sae(folder)
    torch.testing.assert_close(
        folded.encode(x.float()), sae.encode(normalised), atol=2e-4, rtol=1e-4
    )
    back = sae(normalised).double() @ torch.linalg.inv(matrix) + mean
    torch.testing.assert_close(folded(x.float()).double(), back, atol=2e-4, rtol=1e-4)


def test_damaged_normalisation_files_are_refused(tmp_path: Path, rows: Tensor) -> None:
    folder = _foreign(
        tmp_path, _identity(rows, 8), normalize_activations="expected_average_only_in"
    )
    for text, message in [
        ("{", "gives no number"),
        ('{"scaling_factor": null}', "gives no number"),
        ('{"scaling_factor": 0}', "above 0"),
    ]:
        (folder / SCALER).write_text(text)
        with pytest.raises(SaeError, match=message):
            load_sae(folder)
    config = json.loads((folder / CONFIG).read_text())
    config["normalize_activations"] = "covariance_whitening"
    (folder / CONFIG).write_text(json.dumps(config))
    d = rows.shape[1]
    eye = torch.eye(d)
    for tensors, message in [
        ({"mean": torch.zeros(d), "matrix": eye}, "shapes"),
        ({"mean": torch.zeros(d), "matrix": eye, "inverse_matrix": 2 * eye}, "not inverse"),
    ]:
        save_file(tensors, folder / WHITENING)
        with pytest.raises(SaeError, match=message):
            load_sae(folder)
    assert set(load_file(folder / WEIGHTS)) == {"W_enc", "b_enc", "W_dec", "b_dec"}


# ---- folders in other words ----------------------------------------------------------------------


def _in_k24s_words(folder: Path, sae: StandardSAE, **changes: Any) -> Path:
    """What a .pt file and its _cfg.json come to by the command in docs/evaluation.md."""
    folder.mkdir()
    save_file(sae.tensors(), folder / WEIGHTS)
    config = {
        "seed": 49,
        "batch_size": 4096,
        "lr": 0.0012,
        "l1_coeff": 1.0,
        "seq_len": CONTEXT,
        "enc_dtype": "fp32",
        "model_name": "organism",
        "site": "z",
        "layer": LAYER,
        "head": "cat",
        "act_name": f"blocks.{LAYER}.attn.hook_z",
        "act_size": sae.d_in,
        "dict_size": sae.d_sae,
        **changes,
    }
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def test_the_saes_of_kissane_et_al_are_read_in_their_own_words(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Trained on processed weights, of which their file says nothing: measured, and cured."""
    w, bias = elsewhere.sae, torch.full((256,), -2.0)
    theirs = StandardSAE(w.W_enc, bias, w.W_dec, w.b_dec)
    c = value_offset(organism, LAYER)
    external = _read(_in_k24s_words(tmp_path / "a", theirs), organism)
    assert external.warnings == ()
    assert external.sae.weights_hash() == theirs.weights_hash()
    fit = _fit(external, elsewhere.z + c, c)
    check_fits(external, fit)
    assert fit.chosen.name == "processed"
    torch.testing.assert_close(
        fit.sae.encode(elsewhere.z + c), theirs.encode(elsewhere.z), atol=1e-4, rtol=1e-4
    )
    other = _in_k24s_words(tmp_path / "b", theirs, act_name="blocks.2.hook_mlp_out")
    with pytest.raises(SaeError, match="hook_mlp_out"):
        _read(other, organism)
    half = _in_k24s_words(tmp_path / "c", theirs, enc_dtype="fp16")
    with pytest.raises(SaeError, match=r"float32, cfg\.json says torch\.float16"):
        _read(half, organism)


def test_a_pickle_is_not_opened_but_the_way_out_is_named(
    organism: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "sae_cfg.json").write_text("{}")
    (tmp_path / "sae.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    for place in (tmp_path, tmp_path / "sae.pt"):
        with pytest.raises(SaeError, match=r"A \.pt file is a pickle, .* docs/evaluation\.md"):
            _read(place, organism)
    with pytest.raises(SaeError, match=r"no cfg\.json; give a folder in SAELens's format$"):
        _read(tmp_path / "elsewhere" / "x", organism)


def _older(folder: Path, sae: SparseAutoencoder, **changes: Any) -> Path:
    """A folder as SAELens wrote it before version 6: everything at the top."""
    _foreign(folder, sae)
    config = json.loads((folder / CONFIG).read_text())
    metadata = config.pop("metadata")
    for name in ("k", "reshape_activations", "rescale_acts_by_decoder_norm"):
        config.pop(name, None)
    for name in ("model_name", "hook_name", "hook_head_index", "context_size", "prepend_bos"):
        config[name] = metadata[name]
    config |= {"architecture": "standard", "hook_layer": LAYER, "normalize_activations": False}
    (folder / CONFIG).write_text(json.dumps(config | changes))
    return folder


def test_an_older_topk_folder_is_a_topk_sae(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """SAELens called it standard, with another activation function."""
    words = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    external = _read(_older(tmp_path / "a", elsewhere.sae, **words), organism)
    assert external.warnings == ()
    assert external.sae.weights_hash() == elsewhere.sae.weights_hash()
    assert _fit(external, elsewhere.z).objections == ()
    relu = _older(tmp_path / "b", _as_standard(elsewhere.sae), activation_fn_str="relu")
    assert load_sae(relu).architecture == "standard"
    oldest = {"hook_name": None, "activation_fn": "topk", "activation_fn_kwargs": {"k": K}}
    folder = _older(tmp_path / "c", elsewhere.sae, **oldest)
    config = json.loads((folder / CONFIG).read_text())
    del config["hook_name"]
    config["hook_point"] = f"blocks.{LAYER}.attn.hook_z"
    (folder / CONFIG).write_text(json.dumps(config))
    assert _read(folder, organism).sae.k == K


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"activation_fn_str": "topk"}, r"gives k = None for a topk SAE"),
        ({"activation_fn_str": "tanh-relu"}, "'tanh-relu', which is neither relu nor topk"),
        ({"architecture": "topk", "k": 4, "activation_fn_str": "relu"}, "both architecture 'topk'"),
        ({"architecture": "gated", "activation_fn_str": "topk"}, "both architecture 'gated'"),
        (
            {"activation_fn_str": "topk", "k": 8, "activation_fn_kwargs": {"k": 4}},
            "gives k = 8 and, in activation_fn_kwargs, 4",
        ),
        ({"k": 4}, "says architecture 'standard' and k = 4"),
        ({"finetuning_scaling_factor": True}, "activations are multiplied by another tensor"),
        ({"hook_head_index": 3}, "it is for one head"),
        ({"d_out": 192}, "it is a transcoder"),
        ({"reshape_activations": "hook_x"}, "reads activations in another shape"),
        ({"rescale_acts_by_decoder_norm": True}, "fold the norms of decoder rows"),
    ],
)
def test_keys_that_change_what_weights_compute_are_refused(
    organism: LanguageModel,
    elsewhere: Elsewhere,
    tmp_path: Path,
    words: dict[str, Any],
    message: str,
) -> None:
    folder = _older(tmp_path / "sae", elsewhere.sae, **words)
    with pytest.raises(SaeError, match=message) as raised:
        _read(folder, organism)
    assert str(folder) in str(raised.value)


def test_keys_of_which_nothing_is_known_are_a_warning(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    folder = _foreign(tmp_path, elsewhere.sae, tempering=3, centre_inputs=True)
    assert _read(folder, organism).warnings == (
        "cfg.json has keys of which nothing is known here: centre_inputs, tempering",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_threshold_has_the_dtype_that_it_has(
    organism: LanguageModel, elsewhere: Elsewhere, tmp_path: Path, dtype: torch.dtype
) -> None:
    w, bound = elsewhere.sae, torch.full((256,), 2.8)
    folder = _foreign(tmp_path, JumpReLUSAE(w.W_enc, w.b_enc, w.W_dec, w.b_dec, bound))
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    tensors["threshold"] = bound.to(dtype)
    save_file(tensors, folder / WEIGHTS)
    external = _read(folder, organism)
    assert external.sae.tensors()["threshold"].dtype == torch.float32
    assert _fit(external, elsewhere.z).objections == ()
