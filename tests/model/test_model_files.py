"""Model folders as the world has them: what is not a whole model is refused by the thing that is
wrong with it, before anything is computed; what is only written otherwise loads.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Change = Callable[[Path], None]
# Of layer 1, which a model cut off too early would lack.
QKV = {
    "gpt2": "transformer.h.1.attn.c_attn.weight",
    "llama": "model.layers.1.self_attn.q_proj.weight",
}
EMBEDDING = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}
ATTENTION = {"gpt2": "transformer.h.{}.attn.{}", "llama": "model.layers.{}.self_attn.{}"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `gpt2` (tied embeddings) and `llama` (untied, grouped queries) of 2 layers each."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    shared = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2}
    gpt2 = GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=16, **shared)
    GPT2LMHeadModel(gpt2).save_pretrained(folder / "gpt2")
    llama = LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=24,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        **shared,
    )
    LlamaForCausalLM(llama).save_pretrained(folder / "llama")
    return folder


@pytest.fixture(params=["gpt2", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(pristine: Path, family: str, tmp_path: Path) -> Path:
    """A model folder to do something to."""
    return Path(shutil.copytree(pristine / family, tmp_path / family))


def with_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Write the weights anew with changed tensors."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def with_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def shard(folder: Path) -> dict[str, str]:
    """Write the weights as two shards with an index; gives its weight_map."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-{i:05d}-of-00002.safetensors" for i in (1, 2)]
    files = {name: names[i % 2] for i, name in enumerate(sorted(tensors))}
    for file in names:
        save_file(
            {name: tensor for name, tensor in tensors.items() if files[name] == file},
            folder / file,
            metadata={"format": "pt"},
        )
    write_index(folder, files)
    return files


def write_index(folder: Path, files: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))


def refusal(folder: Path | str, **given: Any) -> str:
    with pytest.raises(ModelError) as raised:
        LanguageModel.load(folder, **given)
    return str(raised.value)


# ---- tensors -------------------------------------------------------------------------------------


def test_missing_tensors_are_named(family: str, folder: Path) -> None:
    with_tensors(folder, lambda tensors: tensors.pop(QKV[family]))
    message = refusal(folder)
    assert f"tensors 1 missing: {QKV[family]}" in message
    assert "copy the folder again from its source, or write it with save_pretrained" in message


def test_a_missing_embedding_is_named(family: str, folder: Path) -> None:
    with_tensors(folder, lambda tensors: tensors.pop(EMBEDDING[family]))
    assert EMBEDDING[family] in refusal(folder)


def test_a_layer_that_is_missing_and_one_too_many_are_counted(family: str, folder: Path) -> None:
    layers, per_layer = ("n_layer", 12) if family == "gpt2" else ("num_hidden_layers", 9)
    with_config(folder, **{layers: 3})
    message = refusal(folder)
    assert f"tensors {per_layer} missing: " in message
    assert f"and {per_layer - 3} more" in message
    with_config(folder, **{layers: 1})
    # transformers takes the bias of GPT-2's c_attn for a mask of old checkpoints.
    extra = per_layer - (family == "gpt2")
    assert f"tensors {extra} that the model does not have: " in refusal(folder)


def test_unexpected_tensors_are_named(folder: Path) -> None:
    with_tensors(folder, lambda tensors: tensors.update({"v_head.weight": torch.ones(8)}))
    assert "tensors 1 that the model does not have: v_head.weight" in refusal(folder)


def test_tensors_of_another_shape_are_named_with_both(family: str, folder: Path) -> None:
    name = QKV[family]
    with_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    shape = "[7, 24] instead of [8, 24]" if family == "gpt2" else "[15, 16] instead of [16, 16]"
    assert f"tensors 1 of another shape: {name} {shape}" in refusal(folder)


def test_everything_that_is_wrong_with_tensors_is_one_error(family: str, folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["extra"] = tensors.pop(QKV[family])
        tensors[EMBEDDING[family]] = torch.zeros(41, 5)

    with_tensors(folder, change)
    message = refusal(folder)
    for part in ("1 missing: ", "1 that the model does not have: extra", "1 of another shape: "):
        assert part in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_number_that_is_not_finite_is_found(
    family: str, folder: Path, value: float, dtype: torch.dtype
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[QKV[family]][3, 5] = value

    with_tensors(folder, change)
    message = refusal(folder, dtype=dtype)
    assert f"1 tensors of {folder} have NaN or infinity as {str(dtype)[6:]}: {QKV[family]}" in (
        message
    )


def test_weights_beyond_float16_are_refused_in_it_alone(family: str, folder: Path) -> None:
    with_tensors(folder, lambda tensors: tensors[QKV[family]].fill_(1e5))
    assert "or load them in a wider model.dtype" in refusal(folder, dtype=torch.float16)
    assert LanguageModel.load(folder).hf.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool])
def test_quantised_tensors_are_refused(family: str, folder: Path, dtype: torch.dtype) -> None:
    name = QKV[family]
    with_tensors(folder, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    message = refusal(folder)
    assert f"weights of a dtype that is not read: {name} (" in message
    assert "not quantised" in message


def test_an_unembedding_that_contradicts_the_config_is_refused(family: str, folder: Path) -> None:
    """It would be one matrix in one forward pass and another in the next."""
    with_config(folder, tie_word_embeddings=True)
    with_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING[family]] + 1})
    )
    assert "an unembedding that differs from its embedding, but config.json says" in refusal(folder)
    with_config(folder, tie_word_embeddings=False)
    model = LanguageModel.load(folder)
    torch.testing.assert_close(model.raw_weights.W_U, model.raw_weights.W_E.T + 1)


def test_an_untied_model_without_its_unembedding_is_refused(family: str, folder: Path) -> None:
    with_config(folder, tie_word_embeddings=False)
    with_tensors(folder, lambda tensors: tensors.pop("lm_head.weight", None))
    assert "tensors 1 missing: lm_head.weight" in refusal(folder)


# ---- config and tokenizer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_head": 3}, "3 heads cannot share d_model 8 evenly"),
        ({"n_head": 0}, "0 heads cannot share d_model 8 evenly"),
        ({"n_layer": 0}, "n_layers is 0; correct config.json"),
        ({"n_embd": -8}, "d_model is -8; correct config.json"),
        ({"n_layer": "two"}, "n_layer"),
        ({"vocab_size": 20}, "transformer.wte.weight [40, 8] instead of [20, 8]"),
        ({"n_positions": 8}, "transformer.wpe.weight [16, 8] instead of [8, 8]"),
        ({"n_layer": 10**9}, "weights, but 2,208 are stored beside it"),
        ({"n_embd": 2**20, "n_head": 2}, "are stored beside it; copy the folder again"),
        ({"vocab_size": 2**40}, "are stored beside it; copy the folder again"),
        ({"dtype": "float99"}, "dtype: no such dtype ('float99'); one of ['float64', 'float32'"),
        ({"torch_dtype": 32}, "torch_dtype: no such dtype (32)"),
        ({"model_type": "nonsense"}, "no readable config for model"),
        ({"model_type": "t5"}, "has no causal language model; docs/models.md"),
        ({"activation_function": "nonsense"}, "cannot be loaded (KeyError: 'nonsense')"),
        ({"quantization_config": {"quant_method": "gptq"}}, "describes quantised weights"),
        (
            {"bos_token_id": 40},
            "has id 40, but the model embeds the ids 0..39 alone; correct bos_token_id",
        ),
    ],
)
def test_configs_that_cannot_be_are_refused(
    pristine: Path, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    folder = Path(shutil.copytree(pristine / "gpt2", tmp_path / "gpt2"))
    with_config(folder, **changes)
    assert expected in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\udcff", "\0"])
def test_a_config_that_is_not_json_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert str(folder / "config.json") in refusal(folder)


def test_code_beside_the_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": "own.Own"}
    with_config(folder, auto_map=own, model_type="own")
    refusal(folder)
    assert not ran.exists()


def words(folder: Path, n: int, added: int = 0) -> None:
    """Write a tokenizer of n words and some added tokens behind them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0")),
        bos_token="w1",
        eos_token="w2",
        unk_token="w0",
    )
    tokenizer.add_tokens([f"added{i}" for i in range(added)])
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    words(folder, 40)
    assert LanguageModel.load(folder).token_strings()[39] == "w39"
    words(folder, 39)
    assert LanguageModel.load(folder).token_strings()[39] == "<39>"  # padded embeddings are usual
    words(folder, 41)
    assert "the tokenizer of " in refusal(folder)
    words(folder, 40, added=1)
    assert "has ids up to 40 ('added0'), but the model embeds the ids 0..39 alone" in refusal(
        folder
    )


def test_a_bos_token_that_the_model_does_not_embed_is_refused(folder: Path) -> None:
    """Of a tokenizer without one, the config's counts."""
    words(folder, 40)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            kept = json.loads((folder / name).read_text())
            changed = {key: kept[key] for key in kept if key not in ("bos_token", "eos_token")}
            (folder / name).write_text(json.dumps(changed))
    with_config(folder, bos_token_id=50256)
    with pytest.raises(ModelError, match=r"has id 50256, but the model embeds the ids 0\.\.39"):
        _ = LanguageModel.load(folder).bos_token_id


def test_what_is_left_of_a_tokenizer_is_refused(folder: Path) -> None:
    """Its texts would become words that nobody has written."""
    words(folder, 40)
    (folder / "tokenizer.json").unlink()
    assert "has tokenizer_config.json but no tokenizer (one of tokenizer.json" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer_is_refused(folder: Path, text: str) -> None:
    words(folder, 40)
    (folder / "tokenizer.json").write_text(text)
    assert f"tokenizer of '{folder}' cannot be loaded" in refusal(folder)


# ---- files ---------------------------------------------------------------------------------------


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def lengthened(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"\0" * 16)


def huge_header(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 1 << 62) + file.read_bytes()[8:])


def no_header(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" + b"\0" * 400)  # a pickle with another name


def overlapping(file: Path) -> None:
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    pairs = [
        (a, b) for a in names for b in names if a < b and header[a]["shape"] == header[b]["shape"]
    ]
    header[pairs[0][0]]["data_offsets"] = header[pairs[0][1]]["data_offsets"]
    text = json.dumps(header, separators=(",", ":")).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


DAMAGES = [truncated, emptied, lengthened, huge_header, no_header, overlapping]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weight_files_are_refused(folder: Path, damage: Change) -> None:
    damage(folder / WEIGHTS)
    assert f"weight file {folder / WEIGHTS} is damaged (" in refusal(folder)


@pytest.mark.parametrize("damage", [truncated, emptied, lengthened])
def test_damaged_shards_are_refused(folder: Path, damage: Change) -> None:
    file = sorted(shard(folder).values())[-1]
    damage(folder / file)
    assert f"weight file {folder / file} is damaged (" in refusal(folder)


def test_shards_and_their_index_must_fit(family: str, folder: Path) -> None:
    files = shard(folder)
    LanguageModel.load(folder)
    file = files[QKV[family]]
    other = next(name for name in files.values() if name != file)

    write_index(folder, {**files, QKV[family]: other})
    assert f"names tensors that are not in their files: {QKV[family]}" in refusal(folder)
    write_index(folder, {**files, "more": file})
    assert "names tensors that are not in their files: more" in refusal(folder)
    write_index(folder, {**files, "more": "model-3.safetensors"})
    assert "names files that are not there: model-3.safetensors" in refusal(folder)
    write_index(folder, {name: value for name, value in files.items() if value != other})
    assert "missing: " in refusal(folder)  # a shard that the index does not know
    for odd in ("../x.safetensors", "/etc/passwd", "", 3):
        write_index(folder, {**files, "more": odd})
        assert "more is in no file of the folder" in refusal(folder)
    nothing: tuple[object, ...] = ([], {}, None)
    for files_of in nothing:
        write_index(folder, files_of)
        assert "has no weight_map" in refusal(folder)
    (folder / INDEX).write_text("{")
    assert f"{folder / INDEX} is not JSON" in refusal(folder)

    write_index(folder, files)
    (folder / file).unlink()
    assert f"names files that are not there: {file}" in refusal(folder)
    (folder / INDEX).unlink()
    assert f"has no {WEIGHTS} and no {INDEX} for {other}" in refusal(folder)


def test_a_tensor_in_two_shards_is_refused(family: str, folder: Path) -> None:
    files = shard(folder)
    other = next(name for name in files.values() if name != files[QKV[family]])
    tensors = load_file(folder / other)
    save_file({**tensors, QKV[family]: torch.ones(2)}, folder / other)
    assert f"{QKV[family]} is in both " in refusal(folder)


def test_pickles_are_not_read_and_the_conversion_is_named(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    LanguageModel.load(folder)
    (folder / WEIGHTS).unlink()
    message = refusal(folder)
    assert "as pickles alone (pytorch_model.bin), which are not read" in message
    assert "save_pretrained(new_folder)" in message


def test_an_adapter_is_not_a_model(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter, not a model; merge it" in refusal(folder)


def dangling(place: Path) -> None:
    place.symlink_to(place.parent / "gone")


@pytest.mark.parametrize(
    ("make", "expected"),
    [(os.mkfifo, "not a file (a FIFO)"), (dangling, "link to nothing")],
)
@pytest.mark.parametrize(
    "name", ["config.json", WEIGHTS, "tokenizer.json", "generation_config.json"]
)
def test_what_is_no_file_is_answered_at_once(
    folder: Path, name: str, make: Change, expected: str
) -> None:
    words(folder, 40)
    (folder / name).unlink()
    make(folder / name)
    message = refusal(folder)
    assert str(folder) in message
    assert expected in message or name == "config.json"


def test_a_folder_without_weights_or_config(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert "has no *.safetensors; convert the weights with save_pretrained" in refusal(folder)
    (folder / "config.json").unlink()
    assert "has no config.json; give a folder made by save_pretrained" in refusal(folder)


# ---- what is only written otherwise --------------------------------------------------------------


def logits(folder: Path | str, **given: Any) -> Tensor:
    model = LanguageModel.load(folder, **given)
    with torch.no_grad():
        found: Tensor = model.hf(torch.arange(12)[None]).logits
    return found


def buffers(folder: Path) -> None:
    """What old checkpoints store beside weights."""

    def add(tensors: dict[str, Tensor]) -> None:
        family = folder.name
        for layer in range(2):
            name = ATTENTION[family]
            if family == "gpt2":
                mask = torch.ones(1, 1, 16, 16, dtype=torch.uint8).tril()
                tensors[name.format(layer, "bias")] = mask
                tensors[name.format(layer, "masked_bias")] = torch.tensor(-1e4)
            tensors[name.format(layer, "rotary_emb.inv_freq")] = torch.ones(2)

    with_tensors(folder, add)


def stored_twice(folder: Path) -> None:
    """A tied model with its unembedding stored too."""
    if folder.name == "gpt2":
        with_tensors(
            folder,
            lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING["gpt2"]].clone()}),
        )


def without_prefix(folder: Path) -> None:
    """As the papers' GPT-2 is on the hub."""

    def rename(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("transformer.")]:
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    with_tensors(folder, rename)


def linked(folder: Path) -> None:
    """As the hub's cache holds files."""
    for file in list(folder.iterdir()):
        blob = folder.parent / f"blob-{file.name}"
        file.rename(blob)
        file.symlink_to(blob)


@pytest.mark.parametrize(
    "change", [buffers, stored_twice, without_prefix, linked, shard, lambda folder: None]
)
def test_the_same_model_written_otherwise_loads(
    pristine: Path, family: str, folder: Path, change: Callable[[Path], object]
) -> None:
    expected = logits(pristine / family)
    change(folder)
    assert torch.equal(logits(folder), expected)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("declared", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_load_in_the_declared_precision(
    family: str, folder: Path, stored: torch.dtype, declared: torch.dtype
) -> None:
    original = load_file(folder / WEIGHTS)
    with_tensors(
        folder, lambda tensors: tensors.update({n: t.to(stored) for n, t in original.items()})
    )
    with_config(folder, dtype=str(stored).removeprefix("torch."))
    loaded = LanguageModel.load(folder, dtype=declared).hf.state_dict()
    for name, tensor in original.items():
        assert loaded[name].dtype == declared
        assert torch.equal(loaded[name], tensor.to(stored).to(declared))


# ---- the hub -------------------------------------------------------------------------------------


@pytest.fixture
def on_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Puts the folder, as it now is, into a hub cache and gives its name there."""

    def put() -> str:
        cache = tmp_path / "hub"
        shutil.rmtree(cache, ignore_errors=True)
        place = cache / "models--someone--tiny"
        commit = "0" * 40
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        return "someone/tiny"

    words(folder, 40)
    return put


def test_hub_models_are_held_to_the_same(
    pristine: Path, family: str, folder: Path, on_hub: Callable[[], str]
) -> None:
    assert torch.equal(logits(on_hub()), logits(pristine / family))
    intact = load_file(folder / WEIGHTS)
    with_tensors(folder, lambda tensors: tensors.pop(QKV[family]))
    assert (
        f"the weights of someone/tiny do not fit its config.json (tensors 1 missing: {QKV[family]}"
        in (refusal(on_hub()))
    )
    save_file({**intact, QKV[family]: intact[QKV[family]] / 0}, folder / WEIGHTS, {"format": "pt"})
    assert "1 tensors of someone/tiny have NaN or infinity" in refusal(on_hub())
    save_file(
        {**intact, QKV[family]: intact[QKV[family]].char()}, folder / WEIGHTS, {"format": "pt"}
    )
    assert f"a dtype that is not read: {QKV[family]} (I8)" in refusal(on_hub())
    torch.save(intact, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert "cannot be loaded (OSError" in refusal(on_hub())


# ---- any damage ----------------------------------------------------------------------------------


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_are_other_weights(
    pristine: Path, family: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A number that became another finite number is a model: its fingerprint tells it apart."""
    folder = tmp_path_factory.mktemp("flipped") / family
    shutil.copytree(pristine / family, folder)
    file = folder / data.draw(st.sampled_from(["config.json", WEIGHTS]))
    content = bytearray(file.read_bytes())
    # Headers and configs are short beside weights: half of the flips go there.
    end = data.draw(st.sampled_from([len(content), min(len(content), 2000)]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    message = ""
    try:
        model = LanguageModel.load(folder)
    except ModelError as error:
        message = str(error)
    else:
        assert all(weight.isfinite().all() for weight in model.hf.parameters())
        assert model.weights_hash
    assert not message or str(folder) in message
