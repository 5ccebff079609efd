"""Files of weights: exact, whole or absent, and refused where they are not what they should be."""

import os

import pytest
import torch
from torch import nn

from coursework.models import checkpoints


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_what_is_written_is_read(tmp_path, layer):
    path = tmp_path / "deep" / "weights.safetensors"
    strided = torch.arange(12.0).reshape(3, 4).T
    checkpoints.write(path, {**layer.state_dict(), "strided": strided, "half": torch.ones(2).bfloat16()}, {"step": 7})
    tensors, facts = checkpoints.read(path)
    assert facts == {"step": 7}
    assert torch.equal(tensors["strided"], strided)
    assert tensors["half"].dtype == torch.bfloat16
    assert tensors["1.num_batches_tracked"].dtype == torch.long
    assert all(torch.equal(tensors[name], value) for name, value in layer.state_dict().items())
    assert os.listdir(path.parent) == [path.name]


def test_nothing_is_written_over_a_good_file_by_a_bad_write(tmp_path, layer, monkeypatch):
    path = tmp_path / "weights.safetensors"
    checkpoints.write(path, layer.state_dict(), {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"weights.safetensors: 0.bias has NaN or infinite values"):
        checkpoints.write(path, {"0.bias": torch.tensor([1.0, torch.inf])}, {})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(path, {"0.bias": torch.zeros(2)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.safetensors: damaged, or no checkpoint of this course"):
        checkpoints.read(path)
    with pytest.raises(FileNotFoundError, match=r"y.safetensors: there is no such checkpoint"):
        checkpoints.read(tmp_path / "y.safetensors")


def test_weights_of_another_architecture_are_refused_and_change_nothing(tmp_path, layer):
    state, path = {k: v.clone() for k, v in layer.state_dict().items()}, tmp_path / "w"
    cases = (
        ({k: v for k, v in state.items() if k != "0.bias"}, r"w: from another architecture: it lacks 0.bias"),
        ({**state, "2.bias": torch.zeros(1)}, r"w: .*: it has 2.bias, which the network has not"),
        (
            {**state, "0.weight": torch.zeros(4, 5)},
            r"w: .*: 0.weight is torch.float32 \(4, 5\), the network's is torch.float32 \(4, 3\)",
        ),
        ({**state, "0.weight": torch.zeros(4, 3).int()}, r"w: .*: 0.weight is torch.int32 \(4, 3\), the network's is"),
    )
    for tensors, match in cases:
        with pytest.raises(ValueError, match=match):
            checkpoints.load_into(layer, tensors, path)
    assert all(torch.equal(layer.state_dict()[k], v) for k, v in state.items())
    checkpoints.load_into(layer, {k: v + 1 for k, v in state.items()}, path)
    assert all(torch.equal(layer.state_dict()[k], v + 1) for k, v in state.items())


def test_part_of_the_names():
    a, b = torch.zeros(1), torch.ones(1)
    assert checkpoints.part({"x.a": a, "y.x.b": b}, "x.") == {"a": a}
