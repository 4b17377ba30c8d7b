"""Sphinx extension: a sentence that a notebook wrote is set like any other; a number stays in bold.

MyST-NB gives all glued text one class. Here what is too long for a number gets a second one, `trecx-said`, for the
style sheet.
"""

from docutils import nodes
from sphinx.application import Sphinx

NUMBER = 40  # characters; a saving with its interval, or a difference with its unit, has fewer


def mark_sentences(app: Sphinx, page: nodes.document, name: str) -> None:
    """Add the class to each glued sentence of a page, those that other pages glued among them."""
    for node in page.findall(nodes.inline):
        if "pasted-text" in node["classes"] and len(node.astext()) > NUMBER:
            node["classes"].append("trecx-said")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", mark_sentences)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
