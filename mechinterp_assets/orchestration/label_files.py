"""What assets of labels share: the study's label files, and the SAEs that labels speak of.

Belongs here: reading both for an asset. Does not belong here: the format of the files (labels/).
"""

from collections.abc import Sequence
from pathlib import Path

from mechinterp_assets.labels.files import LabelledSae, read_label_files
from mechinterp_assets.orchestration.run import Run


def labelled_saes(run: Run) -> dict[int, LabelledSae]:
    """Layer -> its SAE, of the layers that have one."""
    return {
        row["layer"]: LabelledSae(row["d_sae"], row["weights_hash"])
        for row in run.frame("attention_sae").to_dicts()
    }


def label_texts(run: Run, paths: Sequence[Path]) -> dict[str, str]:
    """Name -> text of label files, which become inputs of what the asset publishes."""
    texts = read_label_files(paths)
    for path in paths:
        run.inputs.file(path)
    return texts
