"""SAEs of all layers from one shared forward pass: tokens a second, and where the time goes.

    python benchmarks/gpu_training.py                    # one CUDA device, GPT-2 small's shape
    python benchmarks/gpu_training.py --small            # any machine: the same program, tiny

The model has random weights and GPT-2 small's shape (12 layers, 12 heads of 64): speed does not
depend on what it has learned. Rows come from ForwardRows, each layer trains with its own Trainer,
TopK, d_sae 24576, k 32, batch 4096, bfloat16 GEMM: what a study with `rows: forward` runs.

The mark is 150,000 tokens a second on one H100. Arithmetic of a step of one layer, with n = 4096
rows, d = 768, F = 24576 features, k = 32 (H100 SXM: 3.35 TB/s, 989 bf16 TFLOP/s):

  encode      2 n d F = 155 GFLOP in bf16                                       0.16 ms at the peak
              reads encoder 75 MB, writes its bf16 copy 38 MB and pre 201 MB    0.09 ms
  top-k       reads pre 201 MB                                                  0.06 ms
  decode, dot n k rows of the decoder, 403 MB each (the second from the caches) 0.12 ms
  gradients   n k rows of residual and of x, 403 MB each, from the L2 cache;
              writes both gradients, 151 MB                                     0.17 ms
  Adam        reads p, g, m, v and writes p, m, v: 28 bytes x 37.7M             0.32 ms
  projection  of the decoder: 8 passes over 75 MB in plain torch                0.18 ms

  1.1 ms a layer and 13 ms for twelve, and 2 x 85M x n = 0.7 TFLOP of forward pass (about 2 ms):
  about 15 ms for 4096 tokens, 270,000 tokens a second; the mark is 27 ms.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp_assets.activations.forward_rows import ForwardRows
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.architectures.topk import TopKStep
from mechinterp_assets.sae.settings import SaeSettings
from mechinterp_assets.sae.sparse_ops import (
    EntriesByFeature,
    reconstruct,
    topk_encode,
    topk_rows,
    triton_kernels,
)
from mechinterp_assets.sae.trainer import Trainer

MARK = 150_000


def seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """Mean wall seconds of `work`, after one warm-up, the device idle before and after."""
    work()
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def random_model(a: argparse.Namespace, dtype: torch.dtype) -> LanguageModel:
    """A GPT-2 with random weights, loaded the way every model is."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=a.vocabulary,
        n_positions=a.context,
        n_embd=a.d_in,
        n_layer=a.layers,
        n_head=max(1, a.d_in // 64),
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(Path(folder))
        return LanguageModel.load(folder, device=a.device, dtype=dtype)


def parts(step: TopKStep, x: Tensor, k: int) -> dict[str, Callable[[], object]]:
    """The operations of one step, each on its own."""
    centred = x - step.b_dec

    def encode() -> tuple[Tensor, Tensor]:
        found = topk_encode(
            centred, step.encoder, step.b_enc, k, rounded=step.settings.compute_dtype == "bfloat16"
        )
        return found if found is not None else topk_rows(step.encode_pre(centred), k)

    values, features = encode()
    values.relu_()
    residual, along = reconstruct(features, values, step.decoder, step.b_dec, x)
    entries = EntriesByFeature(features, step.settings.d_sae)
    gradient = torch.empty_like(step.decoder)
    return {
        "encoder GEMM": lambda: torch.mm(centred.bfloat16(), step.encoder.bfloat16().T),
        "encode and top-k": encode,
        "decode, residual, dots": lambda: reconstruct(
            features, values, step.decoder, step.b_dec, x
        ),
        "group by feature": lambda: EntriesByFeature(features, step.settings.d_sae),
        "gradient of the decoder": lambda: entries.weighted_rows(values, residual, out=gradient),
        "gradient of the encoder": lambda: entries.weighted_rows(along, centred, out=gradient),
        "all gradients": lambda: step.gradients(x, 1.0),
        "projection, Adam, unit norm": lambda: step.apply(1e-4),
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for any machine")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--d-in", type=int, default=768)
    parser.add_argument("--d-sae", type=int, default=24576)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=16384)
    parser.add_argument("--buffer-rows", type=int, default=524_288)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--steps", type=int, default=400)
    a = parser.parse_args()
    if a.small:
        a.layers, a.d_in, a.d_sae, a.k, a.batch = 2, 64, 512, 8, 512
        a.context, a.sequences, a.buffer_rows, a.vocabulary, a.steps = 32, 128, 2048, 200, 12
    on_gpu = a.device == "cuda"
    torch.set_float32_matmul_precision("high")
    model = random_model(a, torch.bfloat16 if on_gpu else torch.float32)
    ids = torch.randint(1, a.vocabulary, (a.sequences, a.context))
    rows = ForwardRows(model, ids, seed=0, buffer_rows=a.buffer_rows)
    settings = SaeSettings(
        architecture="topk",
        d_sae=a.d_sae,
        training_tokens=10**9,
        batch_size=a.batch,
        k=a.k,
        compute_dtype="bfloat16" if on_gpu else "float32",
        log_every=100,
        sample_rows=min(32768, a.buffer_rows),
    )
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    kernels = "yes" if triton_kernels() is not None else "no"
    print(f"{name}, torch {torch.__version__}, triton kernels: {kernels}")
    print(f"{a.layers} layers of {a.d_in}, d_sae {a.d_sae}, k {a.k}, batch {a.batch}")

    trainers = {
        layer: Trainer(
            settings,
            a.d_in,
            partial(rows.sample, layer),
            device=a.device,
            label=f"layer {layer}",
        )
        for layer in rows.layers
    }

    def together() -> None:
        batch = rows.next(a.batch)
        for layer, trainer in trainers.items():
            trainer.step(batch[layer])

    for _ in range(3):
        together()
    # Whole passes through the buffer, so that its share of the forward pass is in the mean.
    per_step = seconds(together, a.device, a.steps)
    batch = rows.next(a.batch)[rows.layers[0]].float()
    read = seconds(lambda: rows.next(a.batch), a.device, a.steps)
    rate = a.batch / per_step
    print(f"\nall layers trained:  {rate:12,.0f} tokens/s   {per_step * 1e3:9.2f} ms a step")
    print(f"rows alone:          {a.batch / read:12,.0f} tokens/s   {read * 1e3:9.2f} ms a step")
    print(f"300M tokens take     {300e6 / rate / 60:12,.1f} minutes")
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"share of the mark ({MARK:,} tokens/s): {rate / MARK:.2f}   peak {peak:.1f} GiB")

    decoder = torch.randn(a.d_sae, a.d_in, device=a.device)
    decoder /= decoder.norm(dim=1, keepdim=True)
    step = TopKStep(settings, decoder, torch.zeros(a.d_in, device=a.device))
    print("\none layer, ms")
    for part, work in parts(step, batch, a.k).items():
        print(f"  {part:30} {seconds(work, a.device, 20 if on_gpu else 3) * 1e3:9.3f}")
    print("\ngrowth of one step with d_sae, ms")
    for d_sae in (a.d_sae // 4, a.d_sae // 2, a.d_sae):
        resized = settings.with_changes(d_sae=d_sae)
        step = TopKStep(resized, decoder[:d_sae], torch.zeros(a.d_in, device=a.device))

        def one(step: TopKStep = step) -> None:
            step.gradients(batch, 1.0)
            step.apply(1e-4)

        print(f"  {d_sae:8} {seconds(one, a.device, 20 if on_gpu else 3) * 1e3:9.3f}")


if __name__ == "__main__":
    main()
