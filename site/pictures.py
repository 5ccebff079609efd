"""A Sphinx extension: the alternative text that a lesson stores with a picture becomes the text of the page's image."""

import hashlib
from base64 import b64decode
from pathlib import PurePosixPath
from typing import Any

import nbformat
from docutils import nodes


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("doctree-read", name_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def name_pictures(app: Any, doctree: nodes.document) -> None:
    """Gives the pictures of a notebook their texts; myst-nb names a picture's file by the hash of its content."""
    source = app.env.doc2path(app.env.docname)
    if not str(source).endswith(".ipynb"):
        return
    alts = alternative_texts(nbformat.read(source, as_version=4))
    for image in doctree.findall(nodes.image):
        image["alt"] = alts.get(PurePosixPath(image["uri"]).stem, image.get("alt", ""))


def alternative_texts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Returns the alternative text of each stored picture, by the hash of the picture."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return {
        hashlib.sha256(b64decode(output.data["image/png"])).hexdigest(): output.metadata["image/png"]["alt"]
        for output in outputs
        if "alt" in output.get("metadata", {}).get("image/png", {})
    }
