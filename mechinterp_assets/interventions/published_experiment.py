"""A published experiment as data.

Belongs here: what all published experiments say of themselves. Does not belong here: their list
(published.py) and what they choose.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mechinterp_assets.interventions.experiment_context import Chosen, ExperimentContext


@dataclass(frozen=True)
class Published:
    """An experiment of a paper for any model.

    name: key in studies and tables. source: paper and figures. question: what it answers, a line.
    choose: which interventions it consists of here; raises NothingToRun where there are none.
    """

    name: str
    source: str
    question: str
    choose: Callable[[ExperimentContext], list[Chosen]]
