"""The worked examples of docs/development.md work, as the files that they say they are."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mechinterp_assets.activations.harvest import harvest
from mechinterp_assets.activations.rows import TensorRows
from mechinterp_assets.heads.datasets import random_tokens
from mechinterp_assets.heads.head_scores import head_scores
from mechinterp_assets.heads.settings import HeadSettings
from mechinterp_assets.interventions.api import run
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import ioi_prompts
from mechinterp_assets.sae.io import SaeMetadata, load_sae, save_sae
from mechinterp_assets.sae.memory import training_bytes
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.train import train
from mechinterp_assets.sae.traits import architecture_names

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "development.md"
BLOCK = re.compile(r"^```python\n# (mechinterp_assets/\S+/\w+\.py)\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Every example as a file of the package it belongs to, in a folder of its own; their names."""
    folder, names = tmp_path_factory.mktemp("guide"), []
    with pytest.MonkeyPatch.context() as patch:
        for path, text in BLOCK.findall(GUIDE.read_text()):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            package = importlib.import_module(".".join(Path(path).parent.parts))
            if str(file.parent) not in package.__path__:
                patch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
            names.append(f"{package.__name__}.{file.stem}")
        yield names
    for name in names:
        sys.modules.pop(name, None)


def test_the_guide_has_its_examples(extended: list[str]) -> None:
    assert {name.rpartition(".")[2] for name in extended} == {
        "threshold",
        "attention_entropy",
        "role_copy",
    }


def test_the_architecture_trains_and_is_what_it_says(
    extended: list[str], organism: LanguageModel, tmp_path: Path
) -> None:
    assert "threshold" in architecture_names()
    data = random_tokens(organism, n_sequences=64, length=48, seed=0)
    layer = 2
    z = torch.cat([batch.z[layer] for batch in harvest(organism, data.token_ids, [layer])])
    rows = z[:, 1:].flatten(0, 1).float()
    settings = SaeSettings(
        architecture="threshold",
        d_sae=128,
        training_tokens=64 * 300,
        batch_size=64,
        l1_coefficient=0.1,
        initial_threshold=0.3,
        learning_rate=3e-3,
    )
    assert training_bytes(settings, rows.shape[1]) > 4 * 4 * 2 * 128 * rows.shape[1]
    result = train(TensorRows(rows, seed=0), settings)
    log = result.log["batch_explained_variance"]
    assert log[-1] > 0.7
    assert log[-1] > log[0]

    sae, theta = result.sae, 0.3 / result.info["input_scale"]
    pre = (rows - sae.b_dec) @ sae.W_enc + sae.b_enc
    naive = torch.where(pre > theta, pre, 0.0)
    torch.testing.assert_close(sae.encode(rows), naive, rtol=1e-4, atol=1e-5)
    residual = naive @ sae.W_dec + sae.b_dec - rows
    assert 1 - float(residual.var(0).sum() / rows.var(0).sum()) > 0.7

    save_sae(tmp_path, sae, SaeMetadata.of(organism, layer, context_size=48))
    read = load_sae(tmp_path)
    assert read.architecture == "threshold"
    assert torch.equal(read.encode(rows), sae.encode(rows))


def test_the_head_score_is_the_entropy(extended: list[str], organism: LanguageModel) -> None:
    settings = HeadSettings(
        sequences=3, repeat_length=8, sink_length=16, batch_size=2, null_draws=2, cspa_sequences=0
    )
    frame = head_scores(organism, settings).filter(score="attention_entropy")
    assert frame.height == organism.config.n_layers * organism.config.n_heads
    data = random_tokens(organism, n_sequences=3, length=16, seed=0)
    with torch.no_grad():
        _, cache = organism.raw.run_with_cache(data.token_ids)
    for layer, head, value in frame.select("layer", "head", "value").iter_rows():
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][:, head].double()
        entropy = [
            -sum(float(p) * float(p.log()) for p in row if p > 0)
            for sequence in pattern
            for row in sequence
        ]
        assert value == pytest.approx(sum(entropy) / len(entropy), abs=1e-9)
    uniform = sum(float(torch.tensor(t + 1.0).double().log()) for t in range(16)) / 16
    assert frame["null_mean"].unique().to_list() == pytest.approx([uniform])


def test_the_kind_of_intervention_copies_between_roles(
    extended: list[str], organism: LanguageModel
) -> None:
    prompts = ioi_prompts(organism.encode, 3, 0, organism.bos_token_id, ["base"])
    edit = {"kind": "role_copy", "layer": 3, "head": 3, "position_role": "END", "from_role": "S2"}
    found = run(organism, prompts, [edit]).filter(metric="logit_diff").sort("prompt")
    assert found["intervention"].unique().to_list() == ["copy:L3H3:END<-S2"]
    for row, patched in zip(prompts.iter_rows(named=True), found["patched"], strict=True):
        at = {"END": row["n_tokens"] - 1, "S2": row["pos_s2"]}

        def copy(z: torch.Tensor, hook: object, at: dict[str, int] = at) -> torch.Tensor:
            z[:, at["END"], 3] = z[:, at["S2"], 3]
            return z

        with torch.no_grad():
            logits = organism.processed.run_with_hooks(
                torch.tensor([row["token_ids"]]), fwd_hooks=[("blocks.3.attn.hook_z", copy)]
            )[0, -1]
        expected = float(logits[row["io_token_id"]] - logits[row["s_token_id"]])
        assert patched == pytest.approx(expected, abs=1e-4)
    assert (found["patched"] - found["clean"]).abs().max() > 0.1
