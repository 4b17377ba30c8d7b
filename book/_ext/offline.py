"""Sphinx extension: serve MathJax from the book itself, so that no page asks another host for it.

The PyPI package sphinx-mathjax-offline carries all of MathJax (24 MB). Only `tex-svg.js` is copied: it
renders everything alone, glyphs included.
"""

from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

SCRIPT = "tex-svg.js"


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    spec = find_spec("sphinx-mathjax-offline")  # the hyphens forbid a plain import
    if spec is None or spec.origin is None:
        raise ExtensionError("MathJax is missing: install sphinx-mathjax-offline, see requirements.lock")
    source = Path(spec.origin).parent / "static" / "mathjax" / SCRIPT
    copy_asset(str(source), str(Path(app.outdir) / "_static" / "mathjax"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
