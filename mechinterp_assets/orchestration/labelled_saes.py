"""What assets of labels share: the SAEs that labels speak of.

Belongs here: reading them for an asset. Does not belong here: label files (labels/files.py).
"""

from mechinterp_assets.labels.files import LabelledSae
from mechinterp_assets.orchestration.run import Run


def labelled_saes(run: Run) -> dict[int, LabelledSae]:
    """Layer -> its SAE, of the layers that have one."""
    return {
        row["layer"]: LabelledSae(row["d_sae"], row["weights_hash"])
        for row in run.frame("attention_sae").to_dicts()
    }
