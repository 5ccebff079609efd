"""`make quick`: the tests that tests/quick.txt names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "tests" / "quick.txt").read_text().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_quick_test_is_there(line):
    path, _, name = line.partition("[")[0].partition("::")
    assert re.search(rf"^def {name or 'test_'}", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_a_slice_goes_through_everything():
    """Every lesson's module, the networks, training, the exercises, the lessons, publishing, grading and the site."""
    subjects = "distributions score_matching predictions langevin ncsn sdes reverse_sde probability_flow likelihood "
    subjects += "guidance ddpm inverse_problems metrics nn data training exercises lessons publishing "
    subjects += "grading assign site"
    named = {re.match(r"tests/(?:\w+/)?test_(\w+)\.py", line)[1] for line in LINES}
    assert set(subjects.split()) <= named
