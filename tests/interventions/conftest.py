"""Prompts and models for interventions, and hand-made traced edges."""

from collections.abc import Callable, Sequence

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.interventions.experiment_context import ExperimentContext
from mechinterp_assets.interventions.prompts import ROLE_COLUMNS
from mechinterp_assets.interventions.published import choose_published
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.prompts.ioi import ioi_prompts

EdgeFrame = Callable[..., pl.DataFrame]


def choose(
    names: Sequence[str],
    context: ExperimentContext,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[tuple[Planned, ...], pl.DataFrame]:
    """What is run of published experiments, and the frame intervention_experiments."""
    plan = choose_published(names, context, note)
    return plan.runs, plan.experiments


@pytest.fixture(scope="session")
def ioi(organism: LanguageModel) -> pl.DataFrame:
    """A few IOI prompts of several lengths with their ABC variants."""
    return ioi_prompts(organism.encode, 8, 0, organism.bos_token_id, ("base", "ABC"))


@pytest.fixture(scope="session")
def base(ioi: pl.DataFrame) -> pl.DataFrame:
    return ioi.filter(variant="base")


@pytest.fixture(scope="session")
def abc(ioi: pl.DataFrame) -> pl.DataFrame:
    return ioi.filter(variant="ABC")


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random two-layer GPT-2 without biases and without a first MLP.

    What layer 0's attention adds is read by layer 1's attention alone, through a LayerNorm whose
    scale is the norm of the residual stream (epsilon is negligible).
    """
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=30,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        layer_norm_epsilon=1e-12,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    model.transformer.h[0].mlp.c_proj.weight.data.zero_()
    folder = tmp_path_factory.mktemp("two_layers")
    model.save_pretrained(folder)
    return LanguageModel.load(folder)


@pytest.fixture(scope="session")
def busy(organism: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random GPT-2 of five layers and eight heads in which every activation matters.

    The embedded model's vocabulary, no two weights alike (LayerNorms and biases too).
    """
    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=organism.config.d_vocab,
        n_positions=64,
        n_embd=64,
        n_layer=5,
        n_head=8,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        scale = 0.5 if ".ln" in name else 0.4
        parameter.data.add_(scale * torch.randn(parameter.shape))
    folder = tmp_path_factory.mktemp("busy")
    model.save_pretrained(folder)
    return LanguageModel.load(folder)


@pytest.fixture(scope="session")
def toy_prompts() -> pl.DataFrame:
    """Random token prompts with the roles IO, S2 and END, of two lengths."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for prompt, length in enumerate((8, 8, 8, 11, 11)):
        ids = [0, *torch.randint(1, 30, (length - 1,), generator=generator).tolist()]
        rows.append(
            {
                "prompt": prompt,
                "template": 0,
                "name_order": "ABBA",
                "token_ids": ids,
                "n_tokens": length,
                "pos_io": 1 + prompt % 2,
                "pos_s2": length - 3,
                "pos_verb": None if prompt == 4 else length - 2,
                "pos_end": length - 1,
                "io_token_id": ids[1 + prompt % 2],
                "s_token_id": ids[length - 3],
            }
        )
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def traced_edge() -> EdgeFrame:
    """Maker of rows of trace_edges: one edge in every prompt, with given slices."""

    def make(
        prompts: pl.DataFrame,
        upstream: tuple[int, int],
        downstream: tuple[int, int],
        roles: tuple[str, str],
        side: str,
        slices: list[int],
    ) -> pl.DataFrame:
        destination, source = (ROLE_COLUMNS[role] for role in roles)
        return prompts.select(
            "prompt",
            pl.lit("head").alias("upstream_kind"),
            pl.lit(upstream[0]).alias("upstream_layer"),
            pl.lit(upstream[1]).alias("upstream_head"),
            pl.lit(downstream[0]).alias("downstream_layer"),
            pl.lit(downstream[1]).alias("downstream_head"),
            pl.col(destination).alias("destination"),
            pl.col(source).alias("source"),
            pl.lit(roles[0]).alias("destination_role"),
            pl.lit(roles[1]).alias("source_role"),
            pl.lit(side).alias("side"),
            pl.lit(slices, dtype=pl.List(pl.Int32)).alias("slices"),
            pl.lit(1.0).alias("contribution"),
            pl.lit(True).alias("kept"),
        )

    return make
