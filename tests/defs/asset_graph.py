"""The asset graph as text, one paragraph an asset: what a change of it changes shows as a diff.

python -m tests.defs.asset_graph        writes tests/defs/asset_graph.txt anew
"""

import os
from pathlib import Path

FILE = Path(__file__).with_name("asset_graph.txt")


def asset_graph() -> str:
    """Every asset's tables, what it reads, its gates and settings, in the order of their names."""
    from mechinterp_assets.definitions import build_definitions
    from mechinterp_assets.orchestration.shape import SHAPES, Shape

    build_definitions()  # fills SHAPES

    def paragraph(shape: Shape) -> str:
        reads = [
            read.table if read.relation == "own" else f"{read.relation} {read.table}"
            for read in shape.reads
        ]
        lines = {
            f"per {shape.per}": sorted(shape.tables),
            "reads": sorted(reads),
            "gates": sorted(shape.gates),
            "settings": sorted(set(shape.settings)),
            "files": sorted(shape.files),
            "needs": list(shape.needs),
        }
        text = [f"  {name:<9} {' '.join(values)}" for name, values in lines.items() if values]
        return "\n".join([shape.name, *text])

    return "\n\n".join(paragraph(SHAPES[name]) for name in sorted(SHAPES)) + "\n"


if __name__ == "__main__":
    os.environ["MECHINTERP_STUDIES"] = str(FILE.parent.parent / "studies")
    FILE.write_text(asset_graph())
