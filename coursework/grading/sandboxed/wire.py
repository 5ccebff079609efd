"""An answer's way out of the sandbox: a small JSON head and safetensors bytes, both bounded before they are read.

The sandboxed process packs, the grader's process unpacks. Nothing of the learner's is ever unpickled or executed there.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coursework.exercises.judging import Thing

SIZES = struct.Struct("<II")
HEAD_MOST = 128_000
TEXT_MOST = 4_000
ELEMENTS_MOST = 100_000  # of one tensor; exercises compare some dozens
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class BadAnswer(ValueError):
    """What came out of the sandbox is not an answer."""


@dataclass(frozen=True)
class Answer:
    """What an attempt gave: values by case and name, and what went wrong ("" if nothing did).

    `state` is "done", "not attempted", "refused" (it called what is withheld: `touched`), "error" or "no function".
    """

    state: str
    cases: tuple[dict[str, Any], ...] = ()
    touched: tuple[str, ...] = ()
    error: str = ""
    printed: str = ""
    remarks: tuple[str, ...] = ()


def pack(state: str, cases: Sequence[Mapping[str, Any]], **head: Any) -> bytes:
    """An answer as bytes."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    described = [
        {name: _describe(value, f"{i}/{name}", tensors) for name, value in c.items()} for i, c in enumerate(cases)
    ]
    packed = json.dumps({"state": state, "cases": described, **head}).encode()
    blob = save(tensors)
    return SIZES.pack(len(packed), len(blob)) + packed + blob


def _describe(value: Any, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What the head says of a value; a plain tensor goes into `tensors`."""
    if value is None:
        return {"kind": "none"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "number", "value": float(value)}
    if not isinstance(value, Tensor):
        return {"kind": "other", "text": type(value).__name__[:100]}
    value = value.detach()
    plain = value.layout == torch.strided and value.dtype in DTYPES and value.numel() <= ELEMENTS_MOST
    if not plain or value.device.type != "cpu":
        text = f"a {value.layout} {value.dtype} tensor of shape {tuple(value.shape)} on {value.device}"
        return {"kind": "other", "text": text[:200]}
    tensors[key] = value.as_subclass(Tensor).resolve_conj().resolve_neg().contiguous().clone()
    return {"kind": "tensor"}


def unpack(data: bytes, names: Sequence[Sequence[str]]) -> Answer:
    """The answer in bytes that a hostile process may have written.

    names: of the values that it must have, case by case. Raises BadAnswer.
    """
    head, blob = _parts(data)
    state, cases = head.get("state"), head.get("cases")
    if state not in ("done", "not attempted", "refused", "error", "no function"):
        raise BadAnswer("an unknown state")
    if not isinstance(cases, list) or len(cases) > len(names) or (state == "done" and len(cases) != len(names)):
        raise BadAnswer("another number of cases")
    wanted = [(i, name, case) for i, case in enumerate(cases) for name in names[i]]
    tensors = _tensors(blob, {f"{i}/{name}" for i, name, case in wanted if _kind(case, name) == "tensor"})
    values: tuple[dict[str, Any], ...] = tuple({} for _ in cases)
    for i, name, case in wanted:
        values[i][name] = _value(case[name], tensors.get(f"{i}/{name}"))
    return Answer(
        state,
        values,
        _texts(head.get("touched")),
        _text(head.get("error")),
        _text(head.get("printed")),
        _texts(head.get("remarks")),
    )


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < SIZES.size:
        raise BadAnswer("it is cut off")
    length, rest = SIZES.unpack_from(data)
    if length > HEAD_MOST or len(data) != SIZES.size + length + rest:
        raise BadAnswer("its length is not what it says")
    try:
        head = json.loads(data[SIZES.size : SIZES.size + length])
    except (ValueError, RecursionError):
        raise BadAnswer("its head cannot be read") from None
    if not isinstance(head, dict):
        raise BadAnswer("its head is no object")
    return head, data[SIZES.size + length :]


def _kind(case: Any, name: str) -> str:
    if not isinstance(case, dict) or not isinstance(case.get(name), dict):
        raise BadAnswer("a value is missing")
    return str(case[name].get("kind"))


def _tensors(blob: bytes, expected: set[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose table is checked before the library sees it."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if len(blob) < 8:
        raise BadAnswer("its tensors are cut off")
    size = int.from_bytes(blob[:8], "little")
    if size > HEAD_MOST or size + 8 > len(blob):
        raise BadAnswer("its table of tensors is too long")
    try:
        table = json.loads(blob[8 : 8 + size])
    except (ValueError, RecursionError):
        raise BadAnswer("its table of tensors cannot be read") from None
    if not isinstance(table, dict) or set(table) != expected or not all(_sound(entry) for entry in table.values()):
        raise BadAnswer("its tensors are not the ones that were asked for")
    try:
        return load(blob)
    except (SafetensorError, ValueError, RuntimeError):
        raise BadAnswer("its tensors cannot be read") from None


def _sound(entry: Any) -> bool:
    """Whether an entry of the table describes a small tensor."""
    if not isinstance(entry, dict) or entry.get("dtype") not in WIDTHS or not isinstance(entry.get("shape"), list):
        return False
    count = 1
    for length in entry["shape"][:20]:
        if type(length) is not int or not 0 <= length <= ELEMENTS_MOST:
            return False
        count *= length
    return len(entry["shape"]) <= 20 and count <= ELEMENTS_MOST


def _value(description: dict[str, Any], tensor: Tensor | None) -> Any:
    if tensor is not None:
        return tensor
    kind, value = description.get("kind"), description.get("value")
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise BadAnswer("a number is too large") from None
    return None if kind == "none" else Thing(_text(description.get("text")) or "something unknown")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(one) for one in value[:5]) if isinstance(value, list) else ()


def _text(value: Any) -> str:
    """Text of a learner's, cut to a bearable length and without control characters."""
    kept = value[:TEXT_MOST] if isinstance(value, str) else ""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in kept)
