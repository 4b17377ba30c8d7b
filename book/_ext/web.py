"""Sphinx extension: what search engines and links to the book need, and buttons to the repository.

The repository's address is that of the git remote `origin`; TRECX_REPOSITORY gives another. Without one the buttons,
the links and the sitemap are left out, since they would lead nowhere.
"""

import html
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

LONGEST = 200  # characters of a description
CARD = "_static/savings.png"  # the first page's figure, drawn by `python -m trecx.report.overview`
COLAB = "https://colab.research.google.com"


def repository(root: Path) -> str:
    """The https address of the repository that `root` is a clone of; '' where it has no remote."""
    address = os.environ.get("TRECX_REPOSITORY", "")
    if not address and (root / ".git").exists():  # not that of a repository further up
        command = ["git", "-C", str(root), "remote", "get-url", "origin"]
        try:
            address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:  # no git
            return ""
    address = re.sub(r"^(?:ssh://)?git@([^:/]+)[:/]", r"https://\1/", address).removesuffix("/").removesuffix(".git")
    address = re.sub(r"^https://[^/@]+@", "https://", address)  # a token in it is nobody's business
    return address if address.startswith("https://") else ""


def configure(app: Sphinx, config: Config) -> None:
    """Buttons where there is a repository; on GitHub also the address under which the book is published."""
    url = repository(Path(__file__).resolve().parents[2])
    if not url:
        return
    options = config.html_theme_options
    options |= {"repository_url": url, "repository_branch": "main", "path_to_docs": ""}
    options |= {"use_repository_button": True, "use_issues_button": True}
    if found := re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", url):
        options["launch_buttons"] = {"notebook_interface": "jupyterlab", "colab_url": COLAB}
        config.html_baseurl = f"https://{found[1].lower()}.github.io/{found[2]}/"


def describe(doctree: nodes.document | None) -> str:
    """The first paragraph of a page's running text, at most LONGEST characters."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if isinstance(paragraph.parent, nodes.section | nodes.document):
            text = " ".join(paragraph.astext().split())
            return text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + "…"
    return ""


def add_tags(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Description and the tags that a link's preview is made of."""
    title = re.sub(r"<[^>]+>", "", context.get("title") or app.config.html_title)
    tags = {"og:title": html.unescape(title), "og:type": "article", "og:site_name": app.config.html_title}
    if text := describe(doctree):
        tags |= {"description": text, "og:description": text}
    if app.config.html_baseurl and doctree:
        tags["og:url"] = f"{app.config.html_baseurl}{page}.html"
    tags["twitter:card"] = "summary"
    if app.config.html_baseurl:  # a preview takes no relative address
        tags |= {"og:image": f"{app.config.html_baseurl}{CARD}", "twitter:card": "summary_large_image"}
        tags["og:image:alt"] = "FLOPs saved for the accuracy lost: the paper, this replication, smaller networks"
    lines = [
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" content="{html.escape(value)}" />'
        for name, value in tags.items()
    ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """All pages, where the book's address is known."""
    if exception or app.builder.format != "html" or not app.config.html_baseurl:
        return
    pages = sorted(app.env.found_docs)
    rows = [f"  <url><loc>{escape(app.config.html_baseurl)}{escape(page)}.html</loc></url>" for page in pages]
    head = '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    (Path(app.outdir) / "sitemap.xml").write_text("\n".join([head, *rows, "</urlset>", ""]), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", configure)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
