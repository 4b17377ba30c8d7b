"""Sphinx extension: the directive `explorer`, which puts the explorer's data and its static figure into a page.

The data stand in the page itself, since a page that is opened as a file may not fetch another.
`book/_static/explorer.js` replaces the figure by the explorer; where no script runs the figure stays.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Explorer(SphinxDirective):
    """Options: `data` and `figure`, files beside the page; `alt`, the figure for those who do not see it."""

    option_spec = {  # noqa: RUF012  as docutils declares it
        "data": directives.unchanged_required,
        "figure": directives.unchanged_required,
        "alt": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        _, path = self.env.relfn2path(self.options["data"])
        if not Path(path).is_file():
            raise self.error(f"there is no {self.options['data']}: run `make book/notebooks/06_headline.ipynb`")
        self.env.note_dependency(path)
        still = nodes.container(classes=["trecx-still"])
        still += nodes.image(uri=self.options["figure"], alt=self.options["alt"])
        box = nodes.container(classes=["trecx-explorer"])
        box += still
        data = Path(path).read_text(encoding="utf-8").replace("</", "<\\/")  # nothing in it may end the element
        script = f'<script type="application/json" id="explorer-data">{data}</script>'
        return [box, nodes.raw("", script, format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorer", Explorer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
