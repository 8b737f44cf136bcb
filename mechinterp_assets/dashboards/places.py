"""Names of folders and pages under the dashboards' root, for links between them."""

from urllib.parse import urlencode

GLOSSARY = "glossary"
"""Folder of the page that explains tables, columns and scores."""

EXPLORER = "explore"
"""Folder of the page that takes any prompt."""

COMPARISONS = "compare"
"""Folder of the pages that put two studies or two SAEs side by side."""


def frontier_folder(study: str) -> str:
    """Name of the folder with the frontier page of a study's sweep."""
    return f"{study}.frontier"


def trace_folder(study: str, task: str = "ioi") -> str:
    """Name of the folder with the page of a study's traced circuit of a task."""
    return f"{study}.trace" if task == "ioi" else f"{study}.trace.{task}"


def training_folder(study: str) -> str:
    """Name of the folder with the page of how a study's SAEs were trained."""
    return f"{study}.training"


def experiments_folder(study: str) -> str:
    """Name of the folder with the page of a study's experiments."""
    return f"{study}.experiments"


def heads_folder(study: str) -> str:
    """Name of the folder with the pages of a study's heads."""
    return f"{study}.heads"


def head_page(layer: int, head: int) -> str:
    """File name of a head's page in that folder."""
    return f"L{layer:02d}H{head:02d}.html"


def feature_name(layer: int, feature: int | None) -> str:
    """How a feature is written where its layer is not plain: L2F7 is feature 7 of layer 2.

    None is the reconstruction error of the layer's SAE: L2 error.
    """
    return f"L{layer} error" if feature is None else f"L{layer}F{feature}"


def head_href(study: str, layer: int, head: int) -> str:
    """Address of a head's page as seen from another folder of the root."""
    return f"../{heads_folder(study)}/{head_page(layer, head)}"


def task_title(task: str) -> str:
    """A task's name for readers."""
    return "IOI" if task == "ioi" else task.replace("_", " ")


def layer_href(study: str, layer: int) -> str:
    """Address of a layer's index as seen from another folder of the root."""
    return f"../{study}.L{layer:02d}/index.html"


def feature_href(study: str, layer: int, feature: int) -> str:
    """Address of a feature's page as seen from another folder of the root."""
    return f"../{study}.L{layer:02d}/features/{feature}.html"


def effect_href(study: str, layer: int, feature: int) -> str:
    """Address of a feature's effect on any token, in the explorer, as seen from its page."""
    return f"../../{EXPLORER}/#{urlencode({'study': study, 'flayer': layer, 'feature': feature})}"


def prompt_href(study: str, text: str) -> str:
    """Address of a prompt in the explorer as seen from another folder of the root."""
    return f"../{EXPLORER}/#{urlencode({'study': study, 'text': text})}"


def prompts_folder(study: str) -> str:
    """Name of the folder with the page of a study's kept prompts."""
    return f"{study}.prompts"


def comparison_href(name: str, other: str) -> str:
    """Address of the page of two studies, or of two SAEs (sites), as seen from another."""
    return f"../../../{COMPARISONS}/{name}/{other}/"
