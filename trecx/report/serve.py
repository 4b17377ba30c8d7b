"""Shows the rendered book, and the reruns beside it: `python -m trecx.report.serve 8000`."""

import html
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from trecx import paths
from trecx.report import rerun

HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """`/reruns/` is the list of reruns, with their folders below it; everything else is the book."""

    def translate_path(self, path: str) -> str:
        parts = [part for part in PurePosixPath(unquote(urlsplit(path).path)).parts if part not in ("/", "..", ".")]
        root = paths.HTML
        if parts[:1] == [rerun.RERUNS.name]:
            root, parts = rerun.RERUNS, parts[1:]
        elif parts[:1] == [paths.HTML.name]:  # how a rerun's page names the book, also when it is opened as a file
            parts = parts[1:]
        return str(root.joinpath(*parts))

    def do_GET(self) -> None:
        if urlsplit(self.path).path.rstrip("/") != f"/{rerun.RERUNS.name}":
            super().do_GET()
            return
        page = index().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Nothing: the terminal keeps the addresses in sight."""


def index() -> str:
    """The page that lists the reruns."""
    rows = []
    for about in rerun.listed():
        given = ", ".join(f"{name} = {value}" for name, value in about["parameters"].items()) or "as in the book"
        link = f"/{rerun.RERUNS.name}/{quote(about['page'])}"
        when = about["when"].replace("T", " ").removesuffix("+00:00")
        rows.append(
            f'<tr><th scope="row"><a href="{link}">{html.escape(about["title"])}</a></th>'
            f"<td>{html.escape(given)}</td><td>{when} UTC</td></tr>"
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("chapter", "changed", "when"))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    if not rows:
        table = "<p>None yet: <code>make notebook NB=02_keyword_spotting P='-p source quick -p seed 3'</code>.</p>"
    looks = (
        ":root{color-scheme:light dark}body{font:1rem/1.6 sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
        "th,td{text-align:left;padding:.3rem 1rem .3rem 0;font-weight:400;vertical-align:top}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Reruns</title>'
        f'<meta name="viewport" content="width=device-width"><style>{looks}</style></head><body><main><h1>Reruns</h1>'
        f'{table}<p><a href="/">The book</a></p></main></body></html>'
    )


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; 1 without a book or where the port is taken, 2 on a port that is none."""
    given = (sys.argv[1:] if argv is None else argv) or ["8000"]
    if not given[0].isdigit() or not 0 < int(given[0]) < 65536:
        print(f"PORT is {given[0]!r}: give a number from 1 to 65535.", file=sys.stderr)
        return 2
    if not (paths.HTML / "index.html").is_file() and not rerun.listed():
        print("There is no book yet: run make book first.", file=sys.stderr)
        return 1
    try:
        server = ThreadingHTTPServer((HOST, int(given[0])), partial(Handler))
    except OSError as error:
        print(f"port {given[0]} cannot be used ({error.strerror}): give another, PORT=...", file=sys.stderr)
        return 1
    address = f"http://{HOST}:{given[0]}/"
    print(f"The book: {address}")
    reruns = rerun.listed()
    print(f"{len(reruns)} reruns: {address}{rerun.RERUNS.name}/" if len(reruns) != 1 else f"1 rerun: {address}reruns/")
    for about in reruns:
        print(f"  {address}{rerun.RERUNS.name}/{quote(about['page'])}")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
