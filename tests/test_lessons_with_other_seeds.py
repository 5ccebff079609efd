"""What the worked lessons claim holds with other seeds, with Fashion-MNIST and without: `make seeds`, about an hour."""

import pytest

from tests.helpers import LESSONS, ROOT, small_lessons

USE_CLOTHES = [name for name in LESSONS if "fashion" in (ROOT / "solutions" / f"{name}.ipynb").read_text()]

pytestmark = [pytest.mark.seeds, pytest.mark.usefixtures("one_thread")]
every_seed = pytest.mark.parametrize("seed", range(5))


@every_seed
@pytest.mark.parametrize("name", LESSONS)
def test_claims_hold_without_fashion_mnist(name, seed):
    small_lessons.run_with_its_claims(name, seed)


@pytest.mark.needs("fashion-mnist")
@every_seed
@pytest.mark.parametrize("name", USE_CLOTHES)
def test_claims_hold_with_fashion_mnist(name, seed):
    small_lessons.run_with_its_claims(name, seed)
