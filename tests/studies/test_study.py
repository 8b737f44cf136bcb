"""Study files: what loads, and what each mistake is answered with."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.sae.settings import EXTERNAL_ALONE, SaeSettings
from mechinterp_assets.studies.registry import PACKAGED_STUDIES, load_registry
from mechinterp_assets.studies.study import Study, StudyError
from mechinterp_assets.studies.study_file import load_study

VALID: dict[str, Any] = {
    "study": "mine",
    "description": "a test study",
    "model": {"embedded": "organism"},
    "corpus": {"format": "structured", "documents": 10},
    "sae": {"d_sae": 64, "k": 8, "training_tokens": 1000, "batch_size": 100},
}

SPLICE = {"kind": "sae_splice", "layer": 0}
PATCH = {"kind": "activation_patching", "mode": "noise", "site": "attn_out", "layer": 0}
PATCH |= {"source_variant": "swap"}


def write(folder: Path, change: dict[str, Any] | None = None, name: str = "mine.yaml") -> Path:
    """A study file: VALID with `change` merged into its sections."""
    data = {**VALID}
    for key, value in (change or {}).items():
        old = data.get(key)
        data[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    file = folder / name
    file.write_text(yaml.safe_dump(data))
    return file


def test_shipped_studies_load() -> None:
    registry = load_registry(sorted(PACKAGED_STUDIES.glob("*.yaml")))
    studies = registry.studies
    assert not registry.problems
    assert set(studies) == {"organism", "gpt2-small", "gpt2-small-k24", "smollm2", "smollm2-gpu"}
    assert studies["gpt2-small"].sites[:2] == ["gpt2-small.L00", "gpt2-small.L01"]
    assert len(studies["gpt2-small"].sites) == 12
    assert len(studies["organism"].sites) == studies["organism"].n_layers


def test_example_study_loads_with_its_relative_path() -> None:
    folder = Path(__file__).parents[2] / "examples" / "own-text"
    study = load_study(folder / "own-text.yaml")
    assert study.corpus.path == folder / "texts"


def test_a_variable_names_another_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = {"format": "huggingface", "dataset": "some/text", "dataset_config": "small"}
    corpus |= {"documents": None, "instead": "$OTHER_CORPUS"}
    file = write(tmp_path, {"corpus": corpus})
    monkeypatch.delenv("OTHER_CORPUS", raising=False)
    found = load_study(file).corpus
    assert (found.format, found.dataset, found.path) == ("huggingface", "some/text", None)

    texts = tmp_path / "texts"
    (texts / "deep").mkdir(parents=True)
    (texts / "deep" / "a.jsonl.gz").write_bytes(b"")
    monkeypatch.setenv("OTHER_CORPUS", str(texts))
    study = load_study(file)
    assert (study.corpus.format, study.corpus.path) == ("jsonl", texts)
    assert (study.corpus.dataset, study.corpus.dataset_config) == (None, None)
    assert study.corpus.with_changes(max_tokens=100).path == texts

    (texts / "b.txt").write_text("b")
    with pytest.raises(StudyError, match=r"\$OTHER_CORPUS: corpus .* files of several formats"):
        load_study(file)
    monkeypatch.setenv("OTHER_CORPUS", str(tmp_path / "gone"))
    with pytest.raises(StudyError, match=r"\$OTHER_CORPUS: corpus .*gone does not exist"):
        load_study(file)
    file = write(tmp_path, {"corpus": {**corpus, "instead": "/some/texts"}})
    with pytest.raises(StudyError, match="name a variable"):
        load_study(file)


def test_chosen_layers_become_the_sites(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, {"activations": {"layers": [2, 0]}}))
    assert study.sites == ["mine.L00", "mine.L02"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sea": {}}, ["sea", "unknown key", "did you mean 'sae'"]),
        (
            {"activations": {"layers": [0, 2]}, "rdfa": {"features": [{"layer": 1, "feature": 3}]}},
            ["rdfa.features.0.layer", "layer 1 has no SAE", "layers with one: 0, 2"],
        ),
        (
            {"rdfa": {"features": [{"layer": 1, "feature": 3}] * 2}},
            ["rdfa.features", "features[1] is there twice"],
        ),
        ({"rdfa": {"min_share": 1}}, ["rdfa.min_share", "less than 1"]),
        ({"sae": {"d_sea": 3}}, ["sae.d_sea", "did you mean 'd_sae'", "3"]),
        ({"sae": {"k": True}}, ["sae.k", "True is not a number; write a number"]),
        ({"sae": {"k": "3"}}, ["sae.k", "'3' is not a number; write a number, without quotes"]),
        ({"sae": {"k": 2.5}}, ["sae.k", "2.5"]),
        ({"sae": {"normalize_input": "on"}}, ["sae.normalize_input", "'on' is not true or false"]),
        ({"sae": {"normalize_input": 1}}, ["sae.normalize_input", "1 is not true or false"]),
        ({"sae": {"adam_betas": [0.9, "0.99"]}}, ["sae.adam_betas", "'0.99' is not a number"]),
        ({"sae": {"d_sae_by_layer": {"1": 96}}}, ["sae.d_sae_by_layer", "'1' is not a number"]),
        ({"activations": {"layers": [False]}}, ["activations.layers", "False is not a number"]),
        ({"ioi": {"roots": [[1, True]]}}, ["ioi.roots", "True is not a number"]),
        ({"sae": {"d_sae": -1}}, ["sae.d_sae", "greater than 0", "-1"]),
        ({"sae": {"k": 65}}, ["sae: ", "k is 65", "from 1 to d_sae (64)"]),
        ({"sae": {"k": None}}, ["sae: ", "'topk' needs k", "give it a value"]),
        ({"sae": {"architecture": "vanilla"}}, ["sae.architecture", "'topk'", "vanilla"]),
        ({"sae": {"l1_coefficient": 2}}, ["'topk' has no l1_coefficient", "2.0", "remove it"]),
        ({"sae": {"resample_at": [0.5]}}, ["'topk' has no resample_at", "(0.5,)", "remove it"]),
        (
            {"sae": {"architecture": "jumprelu", "k": None, "l0_coefficient": 1, "auxk": 3}},
            ["sae: ", "'jumprelu' has no auxk", "3"],
        ),
        ({"sae": {"architecture": "gated", "k": None}}, ["'gated' needs l1_coefficient"]),
        (
            {"sae": {"architecture": "matryoshka", "group_sizes": [8, 32]}},
            ["group_sizes is [8, 32]", "the last of them d_sae (64)"],
        ),
        ({"sae": {"training_tokens": 99}}, ["sae: training_tokens (99)", "batch_size (100)"]),
        ({"sae": {"lr_decay": 1.5}}, ["sae.lr_decay", "1.5"]),
        ({"sae": {"adam_betas": [0.9, 1.9]}}, ["sae.adam_betas.1", "1.9"]),
        ({"sae": {"source": "disk"}}, ["sae.source", "'cache' or 'forward'", "disk"]),
        ({"sae": {"d_sae_by_layer": {99: 128}}}, ["sae.d_sae_by_layer", "layer 99"]),
        (
            {"sae": {"l1_coefficient_by_layer": {1: 2}}},
            ["'topk' has no l1_coefficient, so no l1_coefficient_by_layer"],
        ),
        (
            {
                "sae": {
                    "architecture": "standard",
                    "k": None,
                    "l1_coefficient": 1,
                    "l1_coefficient_by_layer": {99: 2},
                }
            },
            ["sae.l1_coefficient_by_layer", "layer 99 has no SAE"],
        ),
        (
            {"sweep": {"variants": [{"architecture": "topk", "k": 4}, {"architecture": "gated"}]}},
            ["sweep.variants[1]", "'gated' needs l1_coefficient"],
        ),
        (
            {"sweep": {"variants": [{"architecture": "topk", "k": 4}] * 2}},
            ["sweep.variants", "variants[1] is there twice"],
        ),
        ({"sae": {"path": "x{layer}"}}, ["sae: path", "set architecture to external"]),
        ({"sae": {"trained_on": "raw"}}, ["sae: trained_on", "set architecture to external"]),
        ({"sae": {"max_fvu": 0.5}}, ["sae: max_fvu", "set architecture to external"]),
        ({"sae": {"architecture": "external", "path": "x"}}, ["not trained: remove batch_size"]),
        ({"activations": {"layers": [99]}}, ["activations.layers", "layer 99", "has layers 0.."]),
        ({"ioi": {"roots": [[99, 0]]}}, ["ioi.roots", "layer 99"]),
        (
            {"model": {"embedded": None, "path": "nowhere"}},
            ["model.path", "nowhere", "does not exist"],
        ),
        (
            {"corpus": {"format": "parquet", "path": "gone.parquet"}},
            ["corpus.path", "gone.parquet", "does not exist"],
        ),
        ({"corpus": {"format": "parquet"}}, ["corpus", "needs path"]),
        ({"model": {"embedded": None, "hub": "gpt2"}}, ["model", "n_layers"]),
        ({"model": {"n_layers": 77}}, ["model.n_layers", "77", "correct it or leave it out"]),
        ({"ioi": {"near_threshold": 0.6}}, ["ioi", "near_threshold 0.6", "firing_threshold"]),
        ({"ioi": {"reference_heads": {"mine": [[99, 0]]}}}, ["reference_heads.mine", "L99H0"]),
        (
            {"ioi": {"reference_heads": {"mine": []}}},
            ["ioi.reference_heads: mine: name at least one"],
        ),
        ({"ioi": {"variants": ["base", "CBA"]}}, ["ioi.variants", "base and any of", "CBA"]),
        ({"ioi": {"variants": ["base"]}}, ["add ABC to ioi.variants"]),
        ({"circuits": {"tasks": ["chess"]}}, ["circuits.tasks", "'chess'", "known: ioi"]),
        ({"circuits": {"tasks": []}}, ["circuits.tasks", "at least one"]),
        ({"circuits": {"ig_rules": ["simpson"]}}, ["circuits.ig_rules.0", "'midpoint'"]),
        (
            {"circuits": {"counterfactual": "swap"}},
            ["circuits.counterfactual 'swap'", "none of ioi.variants (ABC)"],
        ),
        (
            {"interventions": {"head_ablations": [], "edges": 0, "published": []}},
            ["interventions", "nothing would run"],
        ),
        (
            {"interventions": {"experiments": [{"interventions": [{"kind": "ablate"}]}]}},
            ["experiments.0", "interventions.0", "unknown kind 'ablate'", "head_ablation"],
        ),
        (
            {"interventions": {"experiments": [{"file": "gone.yaml"}]}},
            ["interventions.experiments.0", "gone.yaml", "no such file"],
        ),
        (
            {"interventions": {"experiments": [{"task": "chess", "interventions": [SPLICE]}]}},
            ["experiments.0.task names 'chess', which is no task of this study", "ioi, "],
        ),
        (
            {"interventions": {"experiments": [{"interventions": [PATCH]}]}},
            ["experiments.0", "variant 'swap' is not among ioi.variants (base, ABC)"],
        ),
        ({"features": {"proxies": [{"name": "a"}]}}, ["proxies.0", "exactly one of", "'a'"]),
        (
            {"features": {"proxies": [{"name": "a", "regex": "(x"}]}},
            ["proxies.0.regex", "'(x'", "does not compile", "correct it"],
        ),
        (
            {"features": {"proxies": [{"name": "a", "regex": "(?<=x)y"}]}},
            ["proxies.0.regex", "look-around"],
        ),
        (
            {"features": {"proxies": [{"name": "a", "induction": True}] * 2}},
            ["features.proxies", "'a'", "rename one"],
        ),
        (
            {"features": {"proxies": [{"name": "a", "tokens": ["x"], "window": 2}]}},
            ["proxies.0", "window belongs to regex"],
        ),
        (
            {"features": {"proxies": [{"name": "a", "induction": True, "features": {99: [0]}}]}},
            ["proxies.0.features", "layer 99 has no SAE"],
        ),
        ({"features": {"proxies": [{"name": "a", "toknes": ["x"]}]}}, ["did you mean 'tokens'"]),
        ({"comparisons": [{}]}, ["comparisons.0", "give with, layer or version"]),
        ({"comparisons": [{"whit": "x"}]}, ["comparisons.0.whit", "did you mean 'with'"]),
        ({"comparisons": [{"with": "mine"}]}, ["comparisons.0.with", "is this study"]),
        ({"comparisons": [{"layer": 99}]}, ["comparisons.0.layer", "layer 99 has no SAE"]),
        ({"labels": ["gone.csv"]}, ["labels.0", "gone.csv", "does not exist"]),
        ({"study": "Not A Key"}, ["study", "lower-case", "Not A Key"]),
    ],
)
def test_mistakes_name_file_key_value_and_remedy(
    tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    file = write(tmp_path, change)
    with pytest.raises(StudyError) as raised:
        load_study(file)
    message = str(raised.value)
    assert str(file) in message
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    "own",
    [
        {"architecture": "standard", "l1_coefficient": 1, "resample_at": [0.25, 0.5]},
        {"architecture": "topk", "k": 8, "k_start": 32, "auxk_coefficient": 0.03},
        {"architecture": "batchtopk", "k": 8, "auxk": 16},
        {"architecture": "jumprelu", "l0_coefficient": 2, "bandwidth": 0.1},
        {"architecture": "gated", "l1_coefficient": 1, "resample_warmup_steps": 10},
        {"architecture": "matryoshka", "k": 8, "group_sizes": [16, 64]},
    ],
    ids=lambda own: own["architecture"],
)
def test_every_architecture_takes_its_own_settings(tmp_path: Path, own: dict[str, Any]) -> None:
    study = load_study(write(tmp_path, {"sae": {"k": None, **own}}))
    settings = study.sae.for_layer(2)
    for name, value in own.items():
        assert getattr(settings, name) == (tuple(value) if isinstance(value, list) else value)
    assert settings.seed == 2


def test_settings_reach_the_training(tmp_path: Path) -> None:
    given = {
        "seed": 3,
        "adam_betas": [0.8, 0.9],
        "max_gradient_norm": 1.0,
        "decoder_init": "data",
        "b_dec_init": "geometric_median",
        "normalize_input": False,
        "dead_after_tokens": 77,
        "checkpoint_every": 5,
        "lr_warmup": 0.5,
        "d_sae_by_layer": {1: 96},
    }
    section = load_study(write(tmp_path, {"sae": given})).sae
    wide, other = section.for_layer(1).on_device("cuda"), section.for_layer(2).on_device("cpu")
    assert (wide.d_sae, other.d_sae) == (96, 64)
    assert (wide.compute_dtype, other.compute_dtype) == ("bfloat16", "float32")
    assert (wide.seed, wide.adam_betas, wide.max_gradient_norm) == (3001, (0.8, 0.9), 1.0)
    assert (wide.decoder_init, wide.b_dec_init) == ("data", "geometric_median")
    assert (wide.normalize_input, wide.dead_after_tokens) == (False, 77)
    assert (wide.checkpoint_every, wide.lr_warmup) == (5, 0.5)


def test_a_layer_has_its_own_l1_coefficient(tmp_path: Path) -> None:
    by_layer = {0: 0.5, 1: 3.0}
    given = {"architecture": "standard", "l1_coefficient": 1, "l1_coefficient_by_layer": by_layer}
    sae = load_study(write(tmp_path, {"sae": {**given, "k": None}})).sae
    layers = [sae.for_layer(layer) for layer in range(3)]
    assert [one.l1_coefficient for one in layers] == [0.5, 3.0, 1.0]
    # A coefficient of its own is another training; that of another layer is none.
    plain = sae.with_changes(l1_coefficient_by_layer={})
    assert layers[2].fingerprint() == plain.for_layer(2).fingerprint()
    assert layers[1].fingerprint() != plain.for_layer(1).fingerprint()
    sweep = {"variants": [{"architecture": "standard", "l1_coefficient": 2}]}
    study = load_study(write(tmp_path, {"sae": {**given, "k": None}, "sweep": sweep}))
    (variant,) = study.sweep.of(study.sae).values()
    assert [variant.for_layer(layer).l1_coefficient for layer in range(3)] == [2.0, 2.0, 2.0]


def test_variants_of_a_sweep_take_the_rest_from_the_sae(tmp_path: Path) -> None:
    sae = {"k_start": 20, "learning_rate": 0.01, "d_sae_by_layer": {0: 96}}
    variants = [
        {"architecture": "topk", "k": 4},
        {"architecture": "standard", "l1_coefficient": 0.5, "learning_rate": 0.002},
        {"architecture": "topk", "d_sae": 32, "k": 5},
    ]
    sweep = {"variants": variants, "training_tokens": 500}
    study = load_study(write(tmp_path, {"sae": sae, "sweep": sweep}))
    sections = study.sweep.of(study.sae)
    names = ["topk k=4", "standard l1_coefficient=0.5 learning_rate=0.002", "topk k=5 d_sae=32"]
    assert list(sections) == names
    few, l1, narrow = (section.for_layer(0) for section in sections.values())
    assert (few.k, few.k_start, few.d_sae, few.learning_rate, few.training_tokens) == (
        4,
        20,
        96,
        0.01,
        500,
    )
    assert (l1.k, l1.k_start, l1.l1_coefficient, l1.learning_rate, l1.d_sae) == (
        None,
        None,
        0.5,
        0.002,
        96,
    )
    assert (narrow.k, narrow.d_sae) == (5, 32)
    assert l1.sparsity == ("l1_coefficient", 0.5)


def test_missing_key_and_unreadable_yaml(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("study: x\n")
    with pytest.raises(StudyError, match=r"sae: required key is missing"):
        load_study(file)
    file.write_text("study: [")
    with pytest.raises(StudyError, match=r"bad\.yaml:1: not YAML .*; correct it"):
        load_study(file)
    file.write_text("# nothing yet\n")
    with pytest.raises(StudyError, match=r"this file holds nothing; start from"):
        load_study(file)


def test_local_folder_gives_the_layers(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, {"model": {"embedded": None, "path": str(ORGANISM_FOLDER)}}))
    embedded = load_study(write(tmp_path))
    assert study.n_layers == embedded.n_layers > 0


def test_fingerprint_follows_its_section_alone(tmp_path: Path) -> None:
    def fingerprints(study: Study) -> list[str]:
        return [study.fingerprint(section) for section in ("sae", "corpus")]

    before = fingerprints(load_study(write(tmp_path)))
    after = fingerprints(load_study(write(tmp_path, {"sae": {"d_sae": 65}})))
    assert before[0] != after[0]
    assert before[1] == after[1]


def external(folder: Path, path: Any, layers: list[int], **sae: Any) -> Path:
    """A study file whose SAEs were trained elsewhere."""
    data = {
        **VALID,
        "sae": {"architecture": "external", "path": path, **sae},
        "activations": {"layers": layers},
    }
    file = folder / "external.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_external_saes_are_found_by_pattern_or_mapping(tmp_path: Path) -> None:
    for name in ("l00", "l02", "other"):
        (tmp_path / "saes" / name).mkdir(parents=True)
        (tmp_path / "saes" / name / "cfg.json").write_text("{}")
    study = load_study(external(tmp_path, "saes/l{layer:02d}", [0, 2]))
    assert study.sae.external_folder(2) == tmp_path / "saes" / "l02"
    known = {"expected_l0": {2: 17.5}, "expected_hash": "0123456789abcdef"}
    study = load_study(external(tmp_path, {0: "saes/other", 2: "saes/l02"}, [0, 2], **known))
    assert study.sae.external_folder(0) == tmp_path / "saes" / "other"
    assert [study.sae.of_layer("expected_l0", layer) for layer in (0, 2)] == [None, 17.5]
    assert study.sae.of_layer("expected_hash", 2) == "0123456789abcdef"
    assert (study.sae.trained_on, study.sae.max_fvu) == ("auto", 0.5)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, ["sae", "need path", "{layer}"]),
        ("saes/l{layer}", ["sae.path: layer 0", "saes/l0", "has no cfg.json"]),
        ("saes/{head}", ["sae.path", "'head'"]),
        ("saes/one", ["layers 0 and 2 have the same folder"]),
        ({0: "saes/one"}, ["sae.path: no folder for layer 2; add it"]),
    ],
)
def test_external_saes_that_are_not_there(tmp_path: Path, path: Any, expected: list[str]) -> None:
    (tmp_path / "saes" / "one").mkdir(parents=True)
    (tmp_path / "saes" / "one" / "cfg.json").write_text("{}")
    with pytest.raises(StudyError) as raised:
        load_study(external(tmp_path, path, [0, 2]))
    for part in expected:
        assert part in str(raised.value)


def residual_folders(folder: Path, *layers: int) -> None:
    for layer in layers:
        (folder / f"resid{layer}").mkdir()
        (folder / f"resid{layer}" / "cfg.json").write_text("{}")


def test_residual_saes_of_a_study_split_keys_too(tmp_path: Path) -> None:
    """... unless qk_features has some of its own, which split nothing else."""
    residual_folders(tmp_path, 1, 3)
    given = {"path": "resid{layer}", "layers": [3, 1], "centre": True}
    study = load_study(write(tmp_path, {"residual_sae": given, "qk_features": {"prompts": 8}}))
    assert study.residual_sae.folders(study.n_layers) == {
        layer: tmp_path / f"resid{layer}" for layer in (1, 3)
    }
    keys = study.qk_features
    assert (keys.residual_sae, keys.centre_residual) == (str(tmp_path / "resid{layer}"), True)
    assert keys.prompts == 8
    own = {"residual_sae": "own{layer}"}
    study = load_study(write(tmp_path, {"residual_sae": given, "qk_features": own}))
    keys = study.qk_features
    assert (keys.residual_sae, keys.centre_residual) == (str(tmp_path / "own{layer}"), False)
    study = load_study(write(tmp_path, {"qk_features": own}))
    assert study.residual_sae.folders(study.n_layers) == {}
    study = load_study(write(tmp_path))
    assert study.qk_features.residual_sae is None


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"path": "resid"}, ["residual_sae: path", "has no {layer} in it"]),
        ({"layers": [1]}, ["residual_sae", "layers", "need a path"]),
        ({"path": "resid{layer}", "layers": []}, ["layers", "name at least one, each once"]),
        ({"path": "resid{layer}", "layers": [1, 1]}, ["layers", "name at least one, each once"]),
        ({"path": "resid{layer}"}, ["residual_sae.path: layer 0", "resid0 has no cfg.json"]),
        ({"path": "resid{layer}", "layers": [1, 7]}, ["layer 7 does not exist", "0..4"]),
        ({"path": "resid{layer}", "centre": "yes"}, ["residual_sae.centre"]),
        ("resid{layer}", ["residual_sae"]),
    ],
)
def test_residual_saes_that_are_not_there(
    tmp_path: Path, section: Any, expected: list[str]
) -> None:
    residual_folders(tmp_path, 1)
    with pytest.raises(StudyError) as raised:
        load_study(write(tmp_path, {"residual_sae": section}))
    for part in expected:
        assert part in str(raised.value)
    assert "qk_features" not in str(raised.value)


def test_a_sweep_beside_external_saes_says_how_it_trains(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "cfg.json").write_text("{}")
    file = external(tmp_path, {0: "one"}, [0])
    data = yaml.safe_load(file.read_text())
    data["sweep"] = {"variants": [{"architecture": "topk", "k": 4}]}
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(StudyError, match="give the variant d_sae, and the sweep training_tokens"):
        load_study(file)
    data["sweep"] = {
        "variants": [{"architecture": "topk", "k": 4, "d_sae": 32}],
        "training_tokens": 4096,
    }
    file.write_text(yaml.safe_dump(data))
    study = load_study(file)
    (section,) = study.sweep.of(study.sae).values()
    assert (section.architecture, section.d_sae, section.k) == ("topk", 32, 4)


def test_labels_are_found_beside_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("")
    study = load_study(write(tmp_path, {"labels": ["labels.csv"]}))
    assert study.labels == [tmp_path / "labels.csv"]


def test_fingerprints_of_lists_follow_their_values(tmp_path: Path) -> None:
    empty = load_study(write(tmp_path)).fingerprint("comparisons")
    one = load_study(write(tmp_path, {"comparisons": [{"layer": "next"}]}))
    assert one.fingerprint("comparisons") != empty
    assert len(empty) == 16


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("activations: {layers: [0, x]}", "activations.layers.1: Input should be a valid integer"),
        (
            "activations: {layers: some}",
            "activations.layers: Input should be 'all' or a valid list (value 'some')",
        ),
        (
            "heads: {sequences: true}",
            "heads.sequences: True is not a number; write a num",
        ),
        (
            "heads: {sequences: 3.5}",
            "heads.sequences: Input should be a valid integer, g",
        ),
        (
            "heads: {sequences: '3'}",
            "heads.sequences: '3' is not a number; write a numb",
        ),
        (
            "heads: {sequences: 1_000}",
            "heads.sequences: '1_000' is not a number; write a numb",
        ),
        (
            "rdfa: {by_head: yes}",
            "rdfa.by_head: 'yes' is not true or false; write true",
        ),
        (
            "checks: {l0: [0, true]}",
            "checks.l0: True is not a number; write a number (val",
        ),
        ("ioi: {trace_rule: false}", "ioi.trace_rule"),
        ("heads: {movers: [[0, 99]]}", "heads.movers: head L0H99 does not exist; "),
        ("qk_features: {heads: [[7, 0]]}", "qk_features.heads: layer 7 does not exist (head L7H0)"),
        ("labels: nothing", "labels: Input should be a valid list (value 'nothing')"),
        ("ioi: null", "ioi: Input should be a valid dictionary or instance of IoiSettings (value"),
        ("ioi: {variants: [base, ABC, ABC]}", "ioi.variants: name base and any of base, ABC,"),
        (f"corpus_: {'x' * 900}", "corpus_: unknown key (value 'xxx"),
        ("comparisons: [{with_study: x}]", "comparisons.0.with_study: unknown key (value 'x'); kn"),
        ("labels: [~nobody-of-this-name/x.csv]", "labels.0: there is no home folder of that user"),
        (f"labels: [{'x' * 300}]", "'/"),
    ],
)
def test_values_are_what_they_look_like(tmp_path: Path, text: str, line: str) -> None:
    lines = [
        "study: mine",
        "description: a test study",
        "model: {embedded: organism}",
        "corpus: {format: structured, documents: 10}",
        "sae: {d_sae: 64, k: 8, training_tokens: 4000}",
        text,
    ]
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(StudyError) as raised:
        load_study(file)
    assert f"{file}: {line}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


def test_paths_start_at_the_file_and_variables_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TEXTS", str(tmp_path / "texts"))
    for written in ("texts", "./elsewhere/../texts", "$TEXTS", str(tmp_path / "texts")):
        corpus = {"format": "text", "path": written, "documents": None}
        assert load_study(write(tmp_path, {"corpus": corpus})).corpus.path == tmp_path / "texts"


def test_several_mistakes_have_a_line_each(tmp_path: Path) -> None:
    change = {"labels": ["gone.csv"], "heads": {"movers": [[99, 0]]}, "ioi": {"roots": [[98, 0]]}}
    with pytest.raises(StudyError) as raised:
        load_study(write(tmp_path, change))
    lines = str(raised.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["ioi.roots", "heads.movers", "labels.0"]


SAE = {"d_sae": 64, "k": 8, "training_tokens": 4000}
RESULT_CHANGING: dict[str, Any] = {
    "d_sae": 65,
    "k": 9,
    "k_start": 12,
    "training_tokens": 5000,
    "batch_size": 1024,
    "compute_dtype": "bfloat16",
    "learning_rate": 2e-3,
    "adam_betas": (0.8, 0.99),
    "adam_epsilon": 1e-7,
    "lr_warmup": 0.1,
    "lr_decay": 0.1,
    "sparsity_warmup": 0.1,
    "max_gradient_norm": 1.0,
    "normalize_input": False,
    "max_row_norm": 8.0,
    "decoder_init": "data",
    "b_dec_init": "geometric_median",
    "encoder_scale": 0.5,
    "sample_rows": 100,
    "dead_after_tokens": 1000,
    "auxk_coefficient": 0.5,
    "auxk": 3,
    "log_every": 10,
    "seed": 1,
}
OTHERS: dict[str, Any] = {
    "source": "forward",
    "buffer_rows": 7,
    "buffer_dtype": "float32",
    "checkpoint_every": 3,
    "evaluation_tokens": 3,
    "d_sae_by_layer": {1: 128},
}
# Of no effect on the training of one layer, whose settings have its own value (for_layer).
OF_L1_ALONE: dict[str, Any] = {"l1_coefficient_by_layer": {1: 3}}
OF_OTHER_ARCHITECTURES: dict[str, tuple[dict[str, Any], Any]] = {
    "l1_coefficient": ({"architecture": "standard", "l1_coefficient": 1}, 2),
    "l0_coefficient": ({"architecture": "jumprelu", "l0_coefficient": 1}, 2),
    "bandwidth": ({"architecture": "jumprelu", "l0_coefficient": 1}, 0.5),
    "initial_threshold": ({"architecture": "jumprelu", "l0_coefficient": 1}, 0.5),
    "group_sizes": ({"architecture": "matryoshka", "k": 8, "group_sizes": (8, 64)}, (9, 64)),
    "resample_at": ({"architecture": "standard", "l1_coefficient": 1}, (0.5,)),
    "resample_warmup_steps": ({"architecture": "standard", "l1_coefficient": 1}, 7),
}


def test_a_training_is_another_exactly_when_a_setting_changes_what_is_learned() -> None:
    plain = SaeSettings.model_validate(SAE)
    same = plain.fingerprint()
    for name, value in RESULT_CHANGING.items():
        assert plain.with_changes(**{name: value}).fingerprint() != same, name
    for name, value in OTHERS.items():
        assert plain.with_changes(**{name: value}).fingerprint() == same, name
    for name, (own, value) in OF_OTHER_ARCHITECTURES.items():
        before = SaeSettings.model_validate({"d_sae": 64, "training_tokens": 4000, **own})
        assert before.with_changes(**{name: value}).fingerprint() != before.fingerprint(), name
    sparse = SaeSettings.model_validate(
        {"d_sae": 64, "training_tokens": 4000, "architecture": "standard", "l1_coefficient": 1}
    )
    for name, value in OF_L1_ALONE.items():
        assert sparse.with_changes(**{name: value}).fingerprint() == sparse.fingerprint(), name
    tested = {*RESULT_CHANGING, *OTHERS, *OF_OTHER_ARCHITECTURES, *OF_L1_ALONE}
    assert tested | EXTERNAL_ALONE | {"architecture"} == set(SaeSettings.model_fields)
    # A default is as good as the same value given.
    given = plain.with_changes(learning_rate=plain.learning_rate, auxk_coefficient=1.0)
    assert given.fingerprint() == same


def test_many_mistakes_are_counted_and_many_values_are_quick(tmp_path: Path) -> None:
    rows = "[" + "1," * 50_000 + "]"
    for text, last in {
        f"labels: {rows}": "and 49800 more mistakes; correct these first",
        f"rdfa: {{features: [{'{layer: 1, feature: 2}, ' * 15_000}]}}": "is there twice; remove it",
        f"heads: {{movers: [{'[0, 0], ' * 30_000}]}}": "",
    }.items():
        file = tmp_path / "mine.yaml"
        file.write_text(
            "study: mine\ndescription: a\nmodel: {embedded: organism}\n"
            "corpus: {format: structured, documents: 10}\n"
            f"sae: {{d_sae: 64, k: 8, training_tokens: 4000}}\n{text}\n"
        )
        if not last:
            assert len(load_study(file).heads.movers) == 30_000
            continue
        with pytest.raises(StudyError) as raised:
            load_study(file)
        assert len(str(raised.value).splitlines()) <= 201
        assert last in str(raised.value).splitlines()[-1]
