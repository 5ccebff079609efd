"""The progress bar of solvers: it counts their steps and leaves nothing behind, not even after Ctrl-C."""

import io

import pytest
import torch
from tqdm.auto import tqdm

from coursework import progress as module
from coursework.probability_flow import heun
from coursework.progress import progress
from coursework.sdes import VPSDE, uniform_times


def score(x, t):
    return -x


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal would be sent."""
    stream = io.StringIO()
    monkeypatch.setattr(module, "tqdm", lambda **kwargs: tqdm(**kwargs, file=stream, mininterval=0))
    return stream


def left_on_the_line(stream):
    return stream.getvalue().rsplit("\n", 1)[-1].rsplit("\r", 1)[-1].strip()


def test_it_counts_the_steps_and_vanishes(terminal):
    with progress(7, "sampling digits") as on_step:
        heun(score, VPSDE(), torch.ones(2, 3), uniform_times(VPSDE(), 7), on_step=on_step)
    assert "sampling digits: 100%" in terminal.getvalue()
    assert "7/7" in terminal.getvalue()
    assert left_on_the_line(terminal) == ""


def test_ctrl_c_leaves_no_bar_behind(terminal):
    calls = []

    def interrupted(x, t):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return -x

    with pytest.raises(KeyboardInterrupt), progress(50) as on_step:
        heun(interrupted, VPSDE(), torch.ones(2, 3), uniform_times(VPSDE(), 50), on_step=on_step)
    assert "4/50" in terminal.getvalue()
    assert left_on_the_line(terminal) == ""
    assert not tqdm._instances


def test_it_refuses_no_steps():
    with pytest.raises(ValueError, match=r"^n_steps: expected at least 1, got 0"), progress(0):
        pass
