"""What is kept of a cell's outputs: as a notebook shows them, bounded, in work that is linear in what was printed."""

import re
from types import SimpleNamespace

import pytest
from nbformat import v4

from coursework.course import outputs as bounds
from coursework.course.outputs import CUT, LEFT_OUT, Client, Stream, stdout_first

PIECES = ["", "a", "bc", "\n", "\r", "\r\n", "x\ry", "end\r", "1\n2", "\n\n", "\r\r", "long " * 5]


def shown_by(text):
    """What nbclient's expression leaves, line by line; a carriage return at a line's end changes nothing."""
    lines = [re.sub(r"\r+$", "", line) for line in text.split("\n")]
    return "\n".join(re.sub(r".*\r(?=[^\n])", "", line) for line in lines)


def test_a_stream_is_what_nbclient_makes_of_the_whole_text_however_it_comes():
    for a in PIECES:
        for b in PIECES:
            for c in PIECES:
                stream = Stream()
                for piece in (a, b, c, "z"):
                    stream.write(piece)
                assert str(stream) == shown_by(a + b + c + "z"), (a, b, c)


def test_a_text_longer_than_a_slice_is_the_same_text(monkeypatch):
    text = "".join(PIECES * 7) + "z"
    whole = Stream()
    whole.write(text)
    monkeypatch.setattr(bounds, "SLICE", 3)
    sliced = Stream()
    sliced.write(text)
    assert str(sliced) == str(whole) == shown_by(text)


@pytest.mark.parametrize("unit", ["x", "\n", "12, ", "ab\n"])
def test_more_than_the_limit_is_cut_off_and_says_so(monkeypatch, unit):
    monkeypatch.setattr(bounds, "MOST_TEXT", 100)
    stream = Stream()
    for _ in range(1000):
        stream.write(unit)
    assert str(stream) == (unit * 100)[:100] + CUT


def test_a_progress_bar_is_its_last_state_and_takes_no_room(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_TEXT", 100)
    stream = Stream()
    for i in range(1000):
        stream.write(f"\r{i / 10:5.1f}%")
    stream.write("\ndone\n")
    assert str(stream) == " 99.9%\ndone\n"


def test_the_work_is_linear_in_a_line(monkeypatch):
    """Each piece is looked at once, whatever was printed before it."""
    seen = []
    extend = Stream._extend
    monkeypatch.setattr(Stream, "_extend", lambda self, part: seen.append(len(part)) or extend(self, part))
    stream = Stream()
    for _ in range(900):
        stream.write("1, " * 300)
    assert sum(seen) == 900 * 900 == len(str(stream))


# the client, without a kernel


@pytest.fixture
def client():
    """A client in the middle of a cell, and the cell's outputs."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell("")])
    client = Client(SimpleNamespace(nb=notebook, autosave_cell=lambda: None))
    client._start_afresh()
    client.clear_before_next_output = False
    return client


def send(client, cell, kind, **content):
    """A message of the kernel; what it says of a display goes with `display_id`."""
    display = content.pop("display_id", None)
    transient = {"transient": {"display_id": display}} if display else {}
    header = {"msg_type": kind, "msg_id": "m"}
    msg = {"header": header, "msg_type": kind, "parent_header": {"msg_id": "p"}, "content": {**content, **transient}}
    client.process_message(msg, cell, 0)


def settled(client, monkeypatch, *messages):
    """The outputs of a cell whose kernel sends these messages: (kind, content)."""
    cell = client.nb.cells[0]

    def execute(self, cell, index, **options):
        for kind, content in messages:
            send(client, cell, kind, **content)

    monkeypatch.setattr(bounds.PapermillNotebookClient, "execute_cell", execute)
    client.execute_cell(cell, 0)
    return cell.outputs


def out(text, name="stdout"):
    return ("stream", {"name": name, "text": text})


def display(data, **more):
    return ("display_data", {"data": data, "metadata": {}, **more})


def test_all_of_a_stream_is_one_output_and_standard_output_comes_first(client, monkeypatch):
    messages = [out("w", "stderr"), out("a\n"), display({"text/plain": "picture"}), out("b\n"), out("x", "stderr")]
    outputs = settled(client, monkeypatch, *messages)
    assert [(o.get("name"), o.get("text") or o["data"]["text/plain"]) for o in outputs] == [
        *(("stdout", "a\nb\n"), ("stderr", "wx"), (None, "picture"))
    ]


@pytest.mark.parametrize("wait", [True, False])
def test_cleared_outputs_are_gone_and_later_ones_stay(client, monkeypatch, wait):
    messages = [out("old"), display({"text/plain": "old"}), ("clear_output", {"wait": wait}), out("new"), out("er")]
    assert [o["text"] for o in settled(client, monkeypatch, *messages)] == ["newer"]


def test_of_many_outputs_the_first_are_kept_and_an_error_always(client, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_OUTPUTS", 3)
    error = ("error", {"ename": "ValueError", "evalue": "no", "traceback": ["ValueError: no"]})
    outputs = settled(client, monkeypatch, *[display({"text/plain": f"{i}"}) for i in range(9)], error)
    assert [o["data"]["text/plain"] for o in outputs[:3]] == ["0", "1", "2"]
    assert [o.get("text", o.get("ename")) for o in outputs[3:]] == [LEFT_OUT, "ValueError"]


@pytest.mark.parametrize("data", [{"image/png": "A" * 60}, {"application/json": {"a": list(range(20))}}])
def test_of_large_outputs_those_that_fit_are_kept(client, monkeypatch, data):
    monkeypatch.setattr(bounds, "MOST_DATA", 100)
    messages = [display(data, display_id="d"), display({"text/plain": "more" * 20}), display({"text/plain": "more"})]
    update = ("update_display_data", {"data": {"image/png": "B" * 101}, "metadata": {}, "display_id": "d"})
    outputs = settled(client, monkeypatch, *messages, update)
    assert [o.get("data", o.get("text")) for o in outputs] == [data, LEFT_OUT]


def test_long_texts_of_values_and_errors_are_cut(client, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_TEXT", 10)
    error = ("error", {"ename": "ValueError", "evalue": "e" * 99, "traceback": ["t" * 6, "u" * 99]})
    value = ("execute_result", {"data": {"text/plain": "v" * 99}, "metadata": {}, "execution_count": 1})
    shown, failed = settled(client, monkeypatch, value, error)
    assert shown["data"]["text/plain"] == "v" * 10 + CUT
    assert (failed["evalue"], failed["traceback"]) == ("e" * 10 + CUT, ["t" * 6 + "\nuuu" + CUT])


def test_a_cell_that_fails_keeps_what_it_printed(client, monkeypatch):
    def execute(self, cell, index, **options):
        send(client, cell, "stream", name="stdout", text="before")
        raise TimeoutError

    monkeypatch.setattr(bounds.PapermillNotebookClient, "execute_cell", execute)
    with pytest.raises(TimeoutError):
        client.execute_cell(client.nb.cells[0], 0)
    assert [o["text"] for o in client.nb.cells[0].outputs] == ["before"]


def test_pairs_of_streams_alone_change_places():
    outputs = [v4.new_output("stream", name=name, text=name) for name in ("stderr", "stderr", "stdout", "stdout")]
    stdout_first(outputs)
    assert [o.name for o in outputs] == ["stderr", "stdout", "stdout", "stderr"]
