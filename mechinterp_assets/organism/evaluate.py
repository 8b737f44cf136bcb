"""What the embedded model can do, measured: IOI on unseen templates and unseen pairs of names,
induction, losses, head scores, small tasks.

    python -m mechinterp_assets.organism.evaluate --corpus texts.parquet

writes `results.json` beside the weights; the model card quotes it and the tests compute it anew.
The head scores here are a check of the recipe, on a few random sequences; the platform's own are
in `mechinterp_assets.heads`.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import polars as pl
import torch
import typer
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from mechinterp_assets.corpora.structured import NAMES, OBJECTS, PLACES, is_held_out_pair
from mechinterp_assets.corpora.words import COLOURS, DAYS, FEMALE_NAMES, LETTERS, MONTHS
from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.organism.training_data import (
    END_OF_TEXT_ID,
    natural_texts,
    pack_natural,
    pack_structured,
    structured_texts,
)

HELD_OUT_TEMPLATES = (
    "Then, {x} and {y} went to the {place}. {s} gave a {object} to",
    "Then, {x} and {y} had a lot of fun at the {place}. {s} gave a {object} to",
    "Then, {x} and {y} were thinking about going to the {place}. {s} wanted to give a {object} to",
    "Then, {x} and {y} had a long argument, and afterwards {s} said to",
    "Afterwards, {x} and {y} went to the {place}. {s} gave a {object} to",
    "After the lunch, {x} and {y} went to the {place}. {s} gave a {object} to",
    "While {x} and {y} were working at the {place}, {s} decided to give a {object} to",
    "While {x} and {y} were commuting to the {place}, {s} gave a {object} to",
    "When {x} and {y} got a {object} at the {place}, {s} decided to give it to",
    "Friends {x} and {y} found a {object} at the {place}. {s} gave it to",
    "The {place} {x} and {y} went to had a {object}. {s} gave it to",
    "It was a nice day. Afterwards, {x} and {y} went to the {place}. {s} handed the {object} to",
)
"""IOI templates in the style of Wang et al. 2022 (App. E) that the training text never contains;
the blank after the last word is the indirect object."""

NAME_ORDERS = ("ABBA", "BABA")
"""Indirect object first, subject first."""

STRUCTURED_VALIDATION_SEED = 990_000


@dataclass(frozen=True)
class Organism:
    """Model and tokenizer, loaded for evaluation."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast

    @classmethod
    def load(cls, folder: Path = ORGANISM_FOLDER) -> "Organism":
        """Load in fp32 with attention patterns available."""
        model = GPT2LMHeadModel.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        return cls(model.eval(), PreTrainedTokenizerFast.from_pretrained(folder))

    def token(self, word: str) -> int:
        """Id of a word with a leading space; ValueError if it is more than one token."""
        ids = self.tokenizer.encode(f" {word}", add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"{word!r} is {len(ids)} tokens {ids}; choose a word of one token")
        return int(ids[0])

    @torch.no_grad()
    def last_logits(self, prompts: Sequence[str]) -> Float[Tensor, "prompt vocabulary"]:
        """Logits after the last token of each prompt, BOS prepended."""
        encoded = [
            [END_OF_TEXT_ID, *self.tokenizer.encode(p, add_special_tokens=False)] for p in prompts
        ]
        ends = torch.tensor([len(ids) - 1 for ids in encoded])
        tokens = torch.zeros(len(encoded), int(ends.max()) + 1, dtype=torch.long)
        for row, ids in zip(tokens, encoded, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        hidden = self.model.transformer(input_ids=tokens).last_hidden_state
        logits: Tensor = self.model.lm_head(hidden[torch.arange(len(encoded)), ends])
        return logits

    @torch.no_grad()
    def losses(self, tokens: Int[Tensor, "sequence position"]) -> Float[Tensor, "sequence next"]:
        """Cross-entropy of each next token, in nats."""
        logits = self.model(tokens).logits[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), tokens[:, 1:], reduction="none"
        )

    @torch.no_grad()
    def patterns(
        self, tokens: Int[Tensor, "sequence position"]
    ) -> Float[Tensor, "layer sequence head destination source"]:
        """Attention patterns of all layers."""
        return torch.stack(self.model(tokens, output_attentions=True).attentions)


def name_pairs(held_out: bool = True) -> list[tuple[str, str]]:
    """All unordered pairs of names that no training document (or that some may) hold together."""
    return [p for p in combinations(sorted(NAMES), 2) if is_held_out_pair(*p) == held_out]


def measure_ioi(
    organism: Organism, prompts_per_cell: int = 50, seed: int = 0, held_out: bool = True
) -> dict[str, Any]:
    """Accuracy (logit of IO above that of S) and mean logit difference IO - S.

    `prompts_per_cell` prompts for each template and name order, with pairs of names that are held
    out of the training, or with the others.
    """
    rng = random.Random(seed)
    pairs = name_pairs(held_out)
    cells: dict[tuple[str, str], list[float]] = {}
    top_names: list[bool] = []
    for template in HELD_OUT_TEMPLATES:
        for order in NAME_ORDERS:
            prompts, receivers, subjects = [], [], []
            for _ in range(prompts_per_cell):
                receiver, subject = rng.sample(rng.choice(pairs), 2)
                x, y = (receiver, subject) if order == "ABBA" else (subject, receiver)
                prompts.append(
                    template.format(
                        x=x, y=y, s=subject, place=rng.choice(PLACES), object=rng.choice(OBJECTS)
                    )
                )
                receivers.append(organism.token(receiver))
                subjects.append(organism.token(subject))
            logits = organism.last_logits(prompts)
            index = torch.arange(len(prompts))
            difference = logits[index, receivers] - logits[index, subjects]
            cells[template, order] = difference.tolist()
            top_names.extend((logits.argmax(-1) == torch.tensor(receivers)).tolist())

    def summary(differences: list[float]) -> dict[str, float]:
        return {
            "accuracy": fmean(d > 0 for d in differences),
            "logit_difference": fmean(differences),
        }

    def pooled(template: str | None = None, order: str | None = None) -> dict[str, float]:
        return summary(
            [
                d
                for (t, o), differences in cells.items()
                if template in (None, t) and order in (None, o)
                for d in differences
            ]
        )

    return {
        "prompts": prompts_per_cell * len(cells),
        **pooled(),
        "indirect_object_is_top_token": fmean(top_names),
        "by_order": {order: pooled(order=order) for order in NAME_ORDERS},
        "by_template": {
            template: pooled(template)
            | {f"accuracy_{order}": pooled(template, order)["accuracy"] for order in NAME_ORDERS}
            for template in HELD_OUT_TEMPLATES
        },
    }


def repeated_tokens(
    vocabulary: int, sequences: int, length: int, seed: int
) -> Int[Tensor, "sequence position"]:
    """BOS, then `length` random tokens without repetition, then the same tokens again."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(sequences):
        span = torch.randperm(vocabulary - 1, generator=generator)[:length] + 1
        rows.append(torch.cat([torch.tensor([END_OF_TEXT_ID]), span, span]))
    return torch.stack(rows)


def measure_repetition(
    organism: Organism, sequences: int = 32, length: int = 60, seed: int = 0
) -> dict[str, float]:
    """Loss on random tokens, and on the same tokens when they come again."""
    tokens = repeated_tokens(organism.model.config.vocab_size, sequences, length, seed)
    losses = organism.losses(tokens)
    return {
        "loss_first_half": losses[:, :length].mean().item(),
        "loss_second_half": losses[:, length + 1 :].mean().item(),
    }


def measure_heads(
    organism: Organism, sequences: int = 32, length: int = 60, seed: int = 1
) -> dict[str, list[list[float]]]:
    """Mean attention of every head, `[layer][head]`, to the position that defines a role.

    previous_token: A[i, i-1] and sink: A[i, 0], on structured text, i >= 2, 64 tokens;
    duplicate_token: A[i, i - length] and induction: A[i, i - length + 1], on the second half of
    repeated random tokens.
    """
    tokens = repeated_tokens(organism.model.config.vocab_size, sequences, length, seed)
    repeated = organism.patterns(tokens)
    texts = structured_texts(2000, STRUCTURED_VALIDATION_SEED)
    rows = pack_structured(organism.tokenizer, texts, organism.model.config.n_positions)
    natural = organism.patterns(torch.from_numpy(rows[:sequences, :64].astype("int64")))

    def along(
        patterns: Float[Tensor, "layer sequence head destination source"], offset: int, first: int
    ) -> list[list[float]]:
        diagonal = patterns.diagonal(offset=-offset, dim1=-2, dim2=-1)[..., first - offset :]
        scores: list[list[float]] = diagonal.mean(dim=(1, 3)).tolist()
        return scores

    return {
        "previous_token": along(natural, 1, 2),
        "sink": natural[..., 2:, 0].mean(dim=(1, 3)).tolist(),
        "duplicate_token": along(repeated, length, length + 1),
        "induction": along(repeated, length - 1, length + 1),
    }


def measure_losses(organism: Organism, corpus: pl.DataFrame | None = None) -> dict[str, float]:
    """Loss per token on fresh structured documents and, given the corpus, on held-out books."""
    context = organism.model.config.n_positions

    def mean_loss(rows: Any) -> float:
        return organism.losses(torch.from_numpy(rows[:256].astype("int64"))).mean().item()

    texts = structured_texts(3000, STRUCTURED_VALIDATION_SEED)
    losses = {"structured": mean_loss(pack_structured(organism.tokenizer, texts, context))}
    if corpus is not None:
        passages = natural_texts(corpus, held_out=True, limit=100)
        losses["natural"] = mean_loss(
            pack_natural(organism.tokenizer, passages, context, filtered=False)
        )
    return losses


def measure_tasks(organism: Organism, n: int = 200, seed: int = 0) -> dict[str, float]:
    """Accuracy (right answer above all other answers of its class) on small tasks."""
    rng = random.Random(seed)
    prompts: dict[str, list[tuple[str, str, Sequence[str]]]] = {
        "digit copying": [],
        "next day": [],
        "next month": [],
        "next letter": [],
        "colour of an object": [],
        "pronoun": [],
    }
    digits = "3456789"
    for _ in range(n):
        total = rng.choice(digits)
        captions = " ".join(f"Image {i}/{total}" for i in range(1, 3))
        prompts["digit copying"].append((f"{captions} Image 3/", total, digits))
        for task, words in (("next day", DAYS), ("next month", MONTHS)):
            start = rng.randrange(len(words))
            shown = [words[(start + i) % len(words)] for i in range(4)]
            prompts[task].append(
                (", ".join(shown[:3]) + ",", f" {shown[3]}", [f" {w}" for w in words])
            )
        start = rng.randrange(len(LETTERS) - 4)
        prompts["next letter"].append(
            (
                " ".join(LETTERS[start : start + 4]),
                f" {LETTERS[start + 4]}",
                [f" {letter}" for letter in LETTERS],
            )
        )
        things, colours = rng.sample(OBJECTS, 3), rng.sample(COLOURS, 3)
        asked = rng.randrange(3)
        listed = (
            f"a {colours[0]} {things[0]}, a {colours[1]} {things[1]} and a {colours[2]} {things[2]}"
        )
        prompts["colour of an object"].append(
            (
                f"On the table there is {listed}. The {things[asked]} is",
                f" {colours[asked]}",
                [f" {c}" for c in colours],
            )
        )
        name = rng.choice(NAMES)
        prompts["pronoun"].append(
            (
                f"When {name} lost the {rng.choice(OBJECTS)},",
                " she" if name in FEMALE_NAMES else " he",
                (" he", " she"),
            )
        )
    accuracy = {}
    for task, items in prompts.items():
        logits = organism.last_logits([prompt for prompt, _, _ in items])
        right = []
        for row, (_, answer, answers) in zip(logits, items, strict=True):
            first = {a: organism.tokenizer.encode(a, add_special_tokens=False)[0] for a in answers}
            right.append(max(answers, key=lambda a: row[first[a]].item()) == answer)
        accuracy[task] = fmean(right)
    return accuracy


def evaluate(
    organism: Organism, corpus: pl.DataFrame | None = None, prompts_per_cell: int = 50
) -> dict[str, Any]:
    """All measurements, as they are written to results.json."""
    config = organism.model.config
    return {
        "model": {
            "layers": config.n_layer,
            "heads": config.n_head,
            "d_model": config.n_embd,
            "context": config.n_positions,
            "vocabulary": config.vocab_size,
            "parameters": sum(p.numel() for p in organism.model.parameters()),
        },
        "ioi": measure_ioi(organism, prompts_per_cell),
        "ioi_training_pairs": {
            key: value
            for key, value in measure_ioi(organism, prompts_per_cell, held_out=False).items()
            if key != "by_template"
        },
        "repetition": measure_repetition(organism),
        "loss": measure_losses(organism, corpus),
        "tasks": measure_tasks(organism),
        "heads": measure_heads(organism),
    }


def rounded(value: Any, digits: int = 4) -> Any:
    """The same nested value with every float rounded."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return value


def main(
    folder: Annotated[Path, typer.Option(help="folder of the model")] = ORGANISM_FOLDER,
    corpus: Annotated[Path | None, typer.Option(help="Parquet file of the recipe")] = None,
    output: Annotated[Path | None, typer.Option(help="default: results.json in folder")] = None,
) -> None:
    """Measure the embedded model and write results.json."""
    torch.set_num_threads(1)
    frame = None if corpus is None else pl.read_parquet(corpus)
    results = rounded(evaluate(Organism.load(folder), frame))
    text = json.dumps(results, indent=1)
    (output or folder / "results.json").write_text(text + "\n")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
