"""What a lesson's cells print and show while it is executed: in time that is linear in it, and up to a limit.

nbclient joins a cell's texts with a regular expression whose time is quadratic in the length of a line, after the cell,
where no time limit holds; and it keeps whatever comes.
"""

from __future__ import annotations

import json
from typing import Any

from nbformat import NotebookNode, v4
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger

ENGINE = "coursework"
MOST_TEXT = 1_000_000  # characters of each of a cell's streams, and of each text that it shows
MOST_DATA = 20_000_000  # characters of all that a cell shows: pictures are text too
MOST_OUTPUTS = 1000
CUT = f"\n[cut off: {MOST_TEXT:,} characters of a text are kept]\n"
LEFT_OUT = f"[left out: {MOST_OUTPUTS:,} outputs of a cell are kept, and {MOST_DATA:,} characters of them]\n"
SLICE = 2**16


class Stream:
    """A text as it is shown: a carriage return starts its line anew. At most MOST_TEXT characters are kept."""

    def __init__(self) -> None:
        self.full = False
        self._before: list[str] = []  # whole lines
        self._line: list[str] = []  # the last line, so far
        self._sizes = [0, 0]  # of both
        self._returned = False  # a carriage return stands at the end

    def write(self, text: str) -> None:
        """Adds to the text."""
        for start in range(0, len(text), SLICE):
            if not self.full:
                self._write(text[start : start + SLICE])

    def _write(self, text: str) -> None:
        first, *rest = text.split("\n")
        self._extend(first)
        for part in rest:
            self._line.append("\n")
            self._before += self._line
            self._sizes = [sum(self._sizes) + 1, 0]
            self._line, self._returned = [], False
            self._extend(part)
        self.full = sum(self._sizes) > MOST_TEXT

    def _extend(self, part: str) -> None:
        shown = part.rstrip("\r")
        if shown:
            _, returned, last = shown.rpartition("\r")
            if returned or self._returned:
                self._line, self._sizes[1] = [], 0
            self._line.append(last)
            self._sizes[1] += len(last)
        if part:
            self._returned = part.endswith("\r")

    def __str__(self) -> str:
        text = "".join([*self._before, *self._line])
        return text[:MOST_TEXT] + CUT if self.full else text


def size_of(data: dict[str, Any]) -> int:
    """How many characters the data of an output take, by MIME type."""
    return sum(len(value) if isinstance(value, str) else len(json.dumps(value)) for value in data.values())


def shortened(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a message with its plain text, or an error's texts, cut to the limit."""
    short = dict(content)
    if "text/plain" in content.get("data", {}):
        short["data"] = {**content["data"], "text/plain": cut(content["data"]["text/plain"])}
    if "traceback" in content:
        lines = "\n".join(content["traceback"])
        short["evalue"] = cut(content["evalue"])
        short["traceback"] = content["traceback"] if len(lines) <= MOST_TEXT else [cut(lines)]
    return short


def cut(text: str) -> str:
    """The text, or its beginning where it is too long."""
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + CUT


class Client(PapermillNotebookClient):
    """Papermill's client, with bounds on what a cell leaves."""

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        """Executes a cell. However it ends, what it printed is in its outputs."""
        self._start_afresh()
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            for stream, output in self._streams.values():
                output["text"] = str(stream)
            stdout_first(cell.get("outputs", []))

    def output(
        self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        """Adds an output where there is room for it; all that goes to one stream is one output."""
        content, hooked = msg["content"], bool(self.output_hook_stack[msg["parent_header"].get("msg_id")])
        if self.clear_before_next_output and not hooked:
            self._start_afresh()
        if msg["msg_type"] == "stream" and not hooked:
            if content["name"] not in self._streams:
                empty = {**msg, "content": {**content, "text": ""}}
                shown = super().output(outs, empty, display_id, cell_index)
                if shown is None:  # nbclient keeps no such output
                    return None
                self._streams[content["name"]] = Stream(), shown
            stream, output = self._streams[content["name"]]
            stream.write(content["text"])
            return output
        if msg["msg_type"] != "error" and not self._has_room(content, outs):
            return None
        return super().output(outs, {**msg, "content": shortened(content)}, display_id, cell_index)

    def clear_output(self, outs: list[NotebookNode], msg: dict[str, Any], cell_index: int) -> None:
        """Clears the outputs, at once or before the next one."""
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self._start_afresh()

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        if size_of(msg["content"]["data"]) <= MOST_DATA:
            super()._update_display_id(display_id, {**msg, "content": shortened(msg["content"])})

    def _start_afresh(self) -> None:
        self._streams: dict[str, tuple[Stream, NotebookNode]] = {}
        self._n_outputs, self._n_data = 0, 0

    def _has_room(self, content: dict[str, Any], outs: list[NotebookNode]) -> bool:
        """Counts an output, and says so where the first one is left out."""
        fitted = self._n_outputs <= MOST_OUTPUTS and self._n_data <= MOST_DATA
        self._n_outputs += 1
        self._n_data += size_of(content.get("data", {})) + len(content.get("text", ""))
        fits = self._n_outputs <= MOST_OUTPUTS and self._n_data <= MOST_DATA
        if fitted and not fits:
            outs.append(v4.new_output("stream", name="stderr", text=LEFT_OUT))
        return fits


def stdout_first(outputs: list[NotebookNode]) -> None:
    """Puts standard output before an error output that is beside it: which of them comes first is left to chance."""
    for i in range(1, len(outputs)):
        if [output.get("name") for output in outputs[i - 1 : i + 1]] == ["stderr", "stdout"]:
            outputs[i - 1 : i + 1] = outputs[i], outputs[i - 1]


class Engine(NBClientEngine):
    """Papermill's engine, with `Client`. `executed` gets the notebook, which papermill itself keeps where it fails."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        executed: list[NotebookNode],
        start_timeout: float,
        client: dict[str, Any],
        **_: Any,
    ) -> None:
        """Executes the notebook; `client` are options of nbclient's."""
        executed.append(nb_man.nb)
        Client(nb_man, kernel_name=kernel_name, startup_timeout=start_timeout, log=logger, **client).execute()


papermill_engines.register(ENGINE, Engine)
