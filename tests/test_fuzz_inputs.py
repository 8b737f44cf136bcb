"""A short run of the program that damages what studies name."""

import pytest

from tests.fuzz_inputs import main


def test_damaged_inputs_are_refused_or_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(rounds=60, first_seed=0) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    for kind in ("model", "sae", "parquet", "jsonl", "text", "labels", "prompts"):
        assert f"{kind} refused: " in printed
