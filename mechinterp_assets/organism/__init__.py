"""The embedded model: weights, the recipe that trains it and the measurements of what it can do."""

from pathlib import Path

ORGANISM_FOLDER = Path(__file__).resolve().parent
"""Folder with config.json, model.safetensors and the tokenizer, for `LanguageModel.load`."""
