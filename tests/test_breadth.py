"""What is marked slow case by case is there, and leaves each test something that is not."""

from __future__ import annotations

from pathlib import Path

from tests.breadth import dear

ROOT = Path(__file__).parent


def test_dear_cases_are_of_tests_that_exist() -> None:
    for case in dear():
        path, _, name = case.partition("::")
        assert f"def {name.partition('[')[0].rpartition('::')[2]}(" in (ROOT / path).read_text(), case
