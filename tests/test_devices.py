"""The device that a lesson computes on, and its threads."""

import pytest
import torch

from coursework.devices import autocast, has_bfloat16, pick_device


def machine(monkeypatch, cuda=0, mps=False):
    """Makes torch believe in these devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "picked"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "cpu"),
        (2, False, "auto", "cuda"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_pick_device(monkeypatch, cuda, mps, name, picked):
    machine(monkeypatch, cuda, mps)
    assert pick_device(name) == torch.device(picked)


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps", "gpu", "", "CPU"])
def test_pick_device_refuses_what_is_not_there_in_one_line(monkeypatch, name):
    machine(monkeypatch, cuda=2 if name == "cuda:2" else 0)
    with pytest.raises(ValueError, match=r"^name: there is no device .* expected 'auto' or one of cpu") as refusal:
        pick_device(name)
    assert "\n" not in str(refusal.value)


def test_pick_device_keeps_what_it_has_picked():
    assert pick_device(pick_device("cpu")) == torch.device("cpu")


def test_pick_device_refuses_what_is_no_name():
    with pytest.raises(TypeError, match=r"^name: expected a string"):
        pick_device(None)


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("", 1), ("3", 3)])
def test_pick_device_computes_with_one_thread_unless_the_user_asked_for_more(monkeypatch, asked, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    torch.set_num_threads(3)  # what torch would do with OMP_NUM_THREADS=3
    pick_device("cpu")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_has_bfloat16_or_imitates_it(capabilities, has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16(torch.device("cpu")) == has
    assert has_bfloat16(torch.device("cuda"))
    for precision, expected in (("bfloat16", has), ("float32", False)):
        with autocast(torch.device("cpu"), precision):
            assert torch.is_autocast_enabled("cpu") == expected
