"""The recipe of the embedded model: a small GPT-2 that does induction and IOI, trained on a CPU.

    python -m mechinterp_assets.organism.recipe --corpus texts.parquet --output model --minutes 46

Steps: tokenizer (byte-level BPE), packing, training with a curriculum, fp16 safetensors. What the
model reads is decided in `training_data`; what it can do is measured in `evaluate`. Training can
be cut off and continued: run the same command again.
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import torch
import typer
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from mechinterp_assets.corpora.structured import NAMES
from mechinterp_assets.organism.training_data import (
    END_OF_TEXT_ID,
    IGNORED,
    TrainingData,
    natural_texts,
    pack_natural,
    pack_structured,
    structured_texts,
    train_tokenizer,
)


@dataclass(frozen=True)
class Recipe:
    """Sizes and optimisation settings. Either `steps` or `minutes` says how long to train."""

    layers: int = 5
    heads: int = 8
    d_model: int = 192
    context: int = 128
    vocabulary: int = 4096
    batch_size: int = 16
    steps: int | None = None
    minutes: float | None = 46.0
    learning_rate: float = 4e-3
    embedding_learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    decay_from: float = 0.6
    final_learning_rate: float = 0.02
    optimizer: str = "muon"
    natural_passages: int = 12_000
    structured_documents: int = 400_000
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(
                f"got steps={self.steps} and minutes={self.minutes}; give exactly one of them"
            )
        if self.d_model % self.heads:
            raise ValueError(
                f"d_model={self.d_model} is not a multiple of heads={self.heads}; change one"
            )
        if self.optimizer not in ("muon", "adamw"):
            raise ValueError(f"optimizer={self.optimizer!r}; choose 'muon' or 'adamw'")

    def progress(self, step: int, seconds: float) -> float:
        """Share of the training that is done, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))

    def learning_rate_factor(self, step: int, progress: float) -> float:
        """Linear warm-up, constant, cosine decay from `decay_from` to `final_learning_rate`."""
        warm_up = min(1.0, (step + 1) / self.warm_up_steps)
        decayed = max(0.0, (progress - self.decay_from) / (1 - self.decay_from))
        cosine = 0.5 * (1 + math.cos(math.pi * decayed))
        return warm_up * (self.final_learning_rate + (1 - self.final_learning_rate) * cosine)


def build_model(recipe: Recipe) -> GPT2LMHeadModel:
    """A freshly initialised model of the recipe's sizes, without dropout, embeddings tied.

    Positions start as `sinusoidal_positions` and are learned from there.
    Eager attention and the fused form of GPT-2's GELU train fastest on a CPU at these sizes; both
    compute the same function as the defaults with which the saved model is loaded.
    """
    torch.manual_seed(recipe.seed)
    config = GPT2Config(
        vocab_size=recipe.vocabulary,
        n_positions=recipe.context,
        n_embd=recipe.d_model,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
        use_cache=False,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(
            sinusoidal_positions(recipe.context, recipe.d_model, rms=0.06)
        )
    return model


def sinusoidal_positions(
    context: int, d_model: int, rms: float
) -> Float[Tensor, "position d_model"]:
    """Start of the learned position embeddings: sines and cosines with periods from 2 to twice
    the context, of the given root mean square.

    "The position before" is then a rotation, one matrix for all positions, so that previous-token
    heads form early; from random embeddings each position has to be learned alone.
    """
    pairs = d_model // 2
    periods = 2.0 * context ** torch.linspace(0.05, 1, pairs)
    angles = 2 * math.pi * torch.arange(context)[:, None] / periods
    table = torch.cat([angles.sin(), angles.cos(), torch.zeros(context, d_model % 2)], dim=1)
    return table * rms * math.sqrt(2)


def next_token_loss(
    model: GPT2LMHeadModel,
    tokens: Int[Tensor, "batch context"],
    targets: Int[Tensor, "batch context"] | None = None,
) -> Tensor:
    """Mean cross-entropy of the next token, in nats, over the targets that are not `IGNORED`."""
    hidden: Float[Tensor, "batch position d_model"] = model.transformer(
        input_ids=tokens
    ).last_hidden_state
    logits = model.lm_head(hidden[:, :-1]).float()
    expected = (tokens if targets is None else targets)[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=IGNORED)


def build_optimizers(model: GPT2LMHeadModel, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings, biases and norms (or AdamW for all)."""
    blocks: list[Tensor] = []
    embeddings: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        else:
            (blocks if ".h." in name else embeddings).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": embeddings, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if recipe.optimizer == "muon":
        optimizers["muon"] = torch.optim.Muon(
            blocks,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers["adamw"] = torch.optim.AdamW(
            groups, lr=recipe.embedding_learning_rate, betas=(0.9, 0.98), fused=True
        )
    else:
        groups.append({"params": blocks, "weight_decay": recipe.weight_decay})
        optimizers["adamw"] = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True
        )
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


@dataclass
class Trainer:
    """Model, optimizers and the place in the training; saved to and restored from a folder."""

    recipe: Recipe
    data: TrainingData
    model: GPT2LMHeadModel
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, recipe: Recipe, data: TrainingData, device: str = "cpu") -> "Trainer":
        """A trainer at step 0."""
        model = build_model(recipe).to(device).train()
        return cls(recipe, data, model, build_optimizers(model, recipe))

    @property
    def progress(self) -> float:
        return self.recipe.progress(self.step, self.seconds)

    def train_step(self) -> float:
        """One update; returns the loss before it."""
        started, progress = time.perf_counter(), self.progress
        device = self.model.device
        batch = self.data.batch(self.step, progress, self.recipe.batch_size)
        tokens, targets = (torch.from_numpy(array).to(device) for array in batch)
        with torch.autocast(device.type, torch.bfloat16):
            loss = next_token_loss(self.model, tokens, targets)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = self.recipe.learning_rate_factor(self.step, progress)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += time.perf_counter() - started
        return loss.item()

    def save_checkpoint(self, folder: Path) -> None:
        """Write fp32 weights, optimizer states and position; a rename replaces the last one."""
        tensors = {f"model.{n}": p.detach() for n, p in self.model.named_parameters()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": value for key, value in state.items()}
        position = {"step": str(self.step), "seconds": repr(self.seconds)}
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "checkpoint.safetensors.part"
        save_file({k: t.contiguous() for k, t in tensors.items()}, unfinished, position)
        unfinished.replace(folder / "checkpoint.safetensors")

    def load_checkpoint(self, folder: Path) -> None:
        """Restore what `save_checkpoint` wrote; the next step is the one that would have come."""
        path = folder / "checkpoint.safetensors"
        tensors = load_file(path, device=str(self.model.device))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                if key.startswith(f"{name}."):
                    _, index, entry = key.split(".", 2)
                    state.setdefault(int(index), {})[entry] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        position = _metadata(path)
        self.step, self.seconds = int(position["step"]), float(position["seconds"])


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def save_model(model: GPT2LMHeadModel, folder: Path) -> None:
    """Write config and fp16 weights in the Hugging Face layout, with GPT-2's own settings."""
    copy = GPT2LMHeadModel(GPT2Config(**model.config.to_dict()))
    copy.config.activation_function = "gelu_new"
    copy.config.use_cache = True
    copy.generation_config = GenerationConfig.from_model_config(copy.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder)


def prepare(corpus: Path, output: Path, recipe: Recipe) -> TrainingData:
    """Tokenizer and packed sequences; both are kept in `output` and read back when it has them."""
    packed = output / "packed.safetensors"
    if packed.is_file():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(output)
    else:
        frame = pl.read_parquet(corpus)
        natural = natural_texts(frame, False, recipe.natural_passages, recipe.seed)
        structured = structured_texts(recipe.structured_documents, recipe.seed)
        sample = natural[:3000] + structured[:20_000]
        tokenizer = train_tokenizer(sample, recipe.vocabulary, recipe.context)
        tokenizer.save_pretrained(output)
        rows = {
            "natural": pack_natural(tokenizer, natural, recipe.context),
            "structured": pack_structured(tokenizer, structured, recipe.context),
        }
        if empty := [name for name, packed_rows in rows.items() if not len(packed_rows)]:
            raise ValueError(
                f"no sequence of {recipe.context} tokens could be cut from the {empty} text;"
                " give more text or a shorter context"
            )
        save_file({name: torch.from_numpy(r) for name, r in rows.items()}, packed)
    arrays = load_file(packed)
    return TrainingData(
        arrays["natural"].numpy(),
        arrays["structured"].numpy(),
        len(tokenizer),
        tuple(tokenizer.encode(f" {name}")[0] for name in NAMES),
        seed=recipe.seed,
    )


def train(corpus: Path, output: Path, recipe: Recipe, device: str = "cpu") -> GPT2LMHeadModel:
    """The whole recipe; continues from the checkpoint in `output` when there is one."""
    output.mkdir(parents=True, exist_ok=True)
    data = prepare(corpus, output, recipe)
    typer.echo(f"natural sequences {len(data.natural)}, structured {len(data.structured)}")
    trainer = Trainer.start(recipe, data, device)
    if (output / "checkpoint.safetensors").is_file():
        trainer.load_checkpoint(output)
        typer.echo(f"continuing from step {trainer.step}")
    while trainer.progress < 1:
        loss = trainer.train_step()
        if trainer.step % 50 == 0:
            rate = trainer.step * recipe.batch_size * recipe.context / trainer.seconds
            line = {
                "step": trainer.step,
                "minutes": round(trainer.seconds / 60, 2),
                "loss": round(loss, 4),
                "tokens_per_second": round(rate),
            }
            typer.echo(json.dumps(line))
            with (output / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if trainer.step % 500 == 0:
            trainer.save_checkpoint(output)
            save_model(trainer.model, output)
    trainer.save_checkpoint(output)
    save_model(trainer.model, output)
    return trainer.model


def main(
    corpus: Annotated[Path, typer.Option(help="Parquet file with columns text and title")],
    output: Annotated[Path, typer.Option(help="folder of the model and its checkpoint")],
    minutes: Annotated[float | None, typer.Option(help="training time")] = None,
    steps: Annotated[int | None, typer.Option(help="updates, in place of minutes")] = None,
    layers: int = 5,
    heads: int = 8,
    d_model: int = 192,
    batch_size: int = 16,
    learning_rate: float = 4e-3,
    optimizer: str = "muon",
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    device: str = "cpu",
) -> None:
    """Train the embedded model on natural and structured text."""
    torch.set_num_threads(threads)
    if minutes is None and steps is None:
        minutes = 46.0
    recipe = Recipe(
        layers=layers,
        heads=heads,
        d_model=d_model,
        batch_size=batch_size,
        minutes=minutes,
        steps=steps,
        learning_rate=learning_rate,
        embedding_learning_rate=learning_rate,
        optimizer=optimizer,
        seed=seed,
    )
    train(corpus, output, recipe, device)


if __name__ == "__main__":
    typer.run(main)
