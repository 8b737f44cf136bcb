"""What assets of labels share: the study's label files, and the SAEs that labels speak of.

Belongs here: reading both for an asset. Does not belong here: the format of the files (labels/).
"""

from collections.abc import Iterable
from pathlib import Path

from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.orchestration.run import Run


def labelled_saes(run: Run) -> dict[int, LabelledSae]:
    """Layer -> its SAE, of the layers that have one."""
    return {
        row["layer"]: LabelledSae(row["d_sae"], row["weights_hash"])
        for row in run.frame("attention_sae").to_dicts()
    }


def label_texts(run: Run, paths: Iterable[Path]) -> dict[str, str]:
    """File name -> text."""
    texts = {}
    for path in paths:
        texts[path.name] = path.read_text(encoding="utf-8")
    return texts
