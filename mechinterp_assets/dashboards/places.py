"""Names of folders and pages under the dashboards' root, for links between them."""


def frontier_folder(study: str) -> str:
    """Name of the folder with the frontier page of a study's sweep."""
    return f"{study}.frontier"


def trace_folder(study: str, task: str = "ioi") -> str:
    """Name of the folder with the page of a study's traced circuit of a task."""
    return f"{study}.trace" if task == "ioi" else f"{study}.trace.{task}"


def experiments_folder(study: str) -> str:
    """Name of the folder with the page of a study's experiments."""
    return f"{study}.experiments"


def heads_folder(study: str) -> str:
    """Name of the folder with the pages of a study's heads."""
    return f"{study}.heads"


def head_page(layer: int, head: int) -> str:
    """File name of a head's page in that folder."""
    return f"L{layer:02d}H{head:02d}.html"


def layer_href(study: str, layer: int) -> str:
    """Address of a layer's index as seen from another folder of the root."""
    return f"../{study}.L{layer:02d}/index.html"


def feature_href(study: str, layer: int, feature: int) -> str:
    """Address of a feature's page as seen from another folder of the root."""
    return f"../{study}.L{layer:02d}/features/{feature}.html"
