"""What the daemon asks for: what is stale, once for what made it so; killed runs are finished."""

from collections.abc import Iterator

from mechinterp_assets.orchestration.automation import (
    TIMES_FINISHED,
    Asked,
    Wanted,
    next_requests,
)
from mechinterp_assets.orchestration.plan import Unit

KEY = "tiny.L00"
UNIT = Unit("attention_sae", KEY)


class Daemon:
    """Evaluations of one partition, one after the other."""

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}

    def requests(self, now: Wanted) -> bool:
        requested, self.asked = next_requests(now, {KEY: UNIT}, self.asked)
        return requested == [KEY]


def stale(why: str, *, ready: bool = True, killed: str = "") -> Wanted:
    return Wanted(
        {UNIT: why},
        frozenset([UNIT] if ready else []),
        {UNIT: killed} if killed else {},
    )


AT_WORK = Wanted(at_work=frozenset([UNIT]))
FRESH = Wanted()


def test_once_for_the_same_reasons() -> None:
    daemon = Daemon()
    looks = [stale("k"), stale("k"), AT_WORK, stale("k"), stale("k")]
    assert [daemon.requests(now) for now in looks] == [True, False, False, False, False]


def test_again_for_other_reasons_after_a_failure() -> None:
    """The setting that made a run fail is corrected: that is another reason."""
    daemon = Daemon()
    looks = [stale("d_sae: 0"), AT_WORK, stale("d_sae: 0"), stale("d_sae: 64"), stale("d_sae: 64")]
    assert [daemon.requests(now) for now in looks] == [True, False, False, True, False]


def test_again_for_the_same_reasons_after_it_was_fresh() -> None:
    daemon = Daemon()
    looks = [stale("k"), AT_WORK, FRESH, stale("k")]
    assert [daemon.requests(now) for now in looks] == [True, False, False, True]


def test_not_before_what_it_reads_is_fresh() -> None:
    daemon = Daemon()
    looks = [stale("k", ready=False), stale("k", ready=False), stale("k")]
    assert [daemon.requests(now) for now in looks] == [False, False, True]


def killings(daemon: Daemon) -> Iterator[bool]:
    """A run that is killed whenever it is started; each death is looked at three times."""
    for number in range(TIMES_FINISHED + 3):
        yield sum(daemon.requests(stale("k", killed=f"run {number}")) for _ in range(3)) > 0
        daemon.requests(AT_WORK)


def test_a_killed_run_is_finished_and_not_for_ever() -> None:
    daemon = Daemon()
    assert daemon.requests(stale("k"))
    daemon.requests(AT_WORK)
    # Dagster's own retry comes first: what is killed is only acted upon when seen again.
    assert not daemon.requests(stale("k", killed="run 0"))
    assert daemon.requests(stale("k", killed="run 0"))
    assert sum(killings(daemon)) == TIMES_FINISHED - 1


def test_what_a_killed_command_left_is_finished() -> None:
    """Nothing was asked for here: the run was of the command line, and nothing else is stale."""
    daemon = Daemon()
    looks = [stale("", killed="run"), stale("", killed="run"), AT_WORK, FRESH]
    assert [daemon.requests(now) for now in looks] == [False, True, False, False]
