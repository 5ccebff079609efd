from typing import Any

from numpy import ndarray

class Digits:
    images: ndarray[Any, Any]
    target: ndarray[Any, Any]

def load_digits() -> Digits: ...
