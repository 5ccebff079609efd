"""The scripts of `benchmarks/` as modules."""

import importlib
import sys
from types import ModuleType

from tests.helpers import ROOT


def script(name: str) -> ModuleType:
    """benchmarks/{name}.py, imported once; its neighbours are found only meanwhile."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
