"""Zero ablation of every head on a task, against a full forward pass per head.

    python benchmarks/task_ablation.py [--threads 1] [--prompts 16] [--repeats 3]

The peer is TransformerLens as one would write it: for every head and every group of prompts of
equal length, all prompts in one `run_with_hooks` from the tokens on, the loss at the last position.
Ours starts each layer's passes behind the layers before it, stacks heads and prompts into one batch
and unembeds END alone; it also gives logit differences and KL. The embedded model and random models
of two more shapes; CPU seconds, the least of several runs taken in turn. Both must give the same
losses.
"""

import argparse
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    import polars as pl
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from mechinterp_assets.model.language_model import LanguageModel
    from mechinterp_assets.organism import ORGANISM_FOLDER
    from mechinterp_assets.prompts.induction import induction_prompts
    from mechinterp_assets.prompts.ioi import equal_length_groups
    from mechinterp_assets.tasks.ablation import sweep_heads

    torch.set_num_threads(arguments.threads)

    def random_model(layers: int, heads: int, d_model: int) -> LanguageModel:
        torch.manual_seed(0)
        config = GPT2Config(
            n_layer=layers,
            n_head=heads,
            n_embd=d_model,
            vocab_size=4096,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
        )
        with tempfile.TemporaryDirectory() as folder:
            GPT2LMHeadModel(config).save_pretrained(folder)
            model = LanguageModel.load(Path(folder))
            _ = model.processed  # its bridge reads the folder again
            return model

    def naive(model: LanguageModel, prompts: pl.DataFrame) -> torch.Tensor:
        losses = []
        for layer in range(model.config.n_layers):
            for head in range(model.config.n_heads):

                def zero(z: torch.Tensor, hook: object, head: int = head) -> torch.Tensor:
                    z[:, 1:, head] = 0.0
                    return z

                for frame, ids in equal_length_groups(prompts):
                    logits = model.processed.run_with_hooks(
                        ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)]
                    )
                    answer = torch.tensor(frame["answer_token_ids"].list.first().to_list())
                    log_probs = logits[:, -1].log_softmax(-1)
                    losses.append(-log_probs[torch.arange(len(answer)), answer].mean())
        return torch.stack(losses).view(model.config.n_layers * model.config.n_heads, -1)

    models = {"embedded model, 5 x 8, d 192": LanguageModel.load(ORGANISM_FOLDER)}
    for layers, heads, d_model in ((6, 6, 384), (12, 12, 384)):
        models[f"random, {layers} x {heads}, d {d_model}"] = random_model(layers, heads, d_model)
    print(f"{arguments.prompts} prompts, {arguments.threads} threads; CPU seconds")
    for name, model in models.items():
        strings = [str(i) for i in range(model.config.d_vocab)]
        prompts = induction_prompts(
            strings, arguments.prompts, 0, 0, ordinary_ids=model.ordinary_ids
        ).filter(variant="base")
        best = [float("inf"), float("inf")]
        with torch.no_grad():
            for _ in range(arguments.repeats):
                start = time.process_time()
                ours = sweep_heads(model, prompts, modes=("zero",))
                middle = time.process_time()
                theirs = naive(model, prompts)
                spent = middle - start, time.process_time() - middle
                best = [min(pair) for pair in zip(best, spent, strict=True)]
        lengths = prompts["n_tokens"].to_numpy()
        for place, length in enumerate(sorted(set(lengths))):
            mine = ours.ablated["loss"][0][..., lengths == length].mean(-1).ravel()
            assert abs(mine - theirs[:, place].double().numpy()).max() < 1e-3
        print(f"  {name}: ours {best[0]:.2f}, a pass per head {best[1]:.2f}, "
              f"ratio {best[1] / best[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
