"""GGUF files, the format of llama.cpp: quantised weights, sizes and tokenizer in one file.

Belongs here: turning one into a folder that save_pretrained would have written. Does not belong
here: which file (sources.py), and loading that folder (language_model.py).
"""

import shutil
import uuid
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_gguf_available
from transformers.utils import logging as transformers_logging

from mechinterp_assets.model.shape import ModelError

transformers_logging.disable_progress_bar()

INSTALL = 'pip install "mechinterp-assets[gguf]"'


def dequantise(file: Path, folder: Path) -> None:
    """Write weights in float32, config and tokenizer of `file` as a Hugging Face folder.

    The folder appears by one rename, whole; one that another process made meanwhile stays.
    Raises ModelError for a file that is no GGUF file, or of an architecture that transformers does
    not read from one.
    """
    if not is_gguf_available():
        raise ModelError(f"{file} needs the package gguf to be read; install it: {INSTALL}")
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except Exception as error:
        what = " ".join(str(error).split())
        raise ModelError(
            f"GGUF file {file} cannot be read ({type(error).__name__}: {what}); copy it again from "
            "its source, or give the model's own weights as `path:` or `hub:`"
        ) from error
    # What is saved is not quantised, which transformers does not notice.
    del model.config.quantization_config
    model.hf_quantizer = None
    work = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        if not folder.exists():
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
