"""Check the built site: every local link leads somewhere, and no page has an error in the browser's console.

    mkdocs build --strict
    python docs/check_site.py

Serves the site on this machine and opens each page in headless Chromium, which must be installed. With
--screenshots=FOLDER it also writes an image of each page.
"""

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).resolve().parents[1] / "build" / "site"
# Quiet, and without connections of the browser's own.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
    "--window-size=1400,1800",
]


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Note href, src and id of an element."""
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}


def broken_links(site: Path) -> list[str]:
    """Local links of all pages that lead to no file, or to no anchor of a page."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            known = pages[target].anchors if target in pages else None
            if not target.exists() or (parts.fragment and known is not None and parts.fragment not in known):
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *args):
        """Print nothing."""


def console_errors(site: Path, browser: str, screenshots: Path | None) -> list[str]:
    """Messages in the console of each page."""
    handler = functools.partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    errors = []
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        with tempfile.TemporaryDirectory() as profile:
            image = Path(screenshots or profile) / f"{name.removesuffix('.html').replace('/', '-')}.png"
            address = f"http://127.0.0.1:{server.server_port}/{name}"
            command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={image}", address]
            run = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if not image.exists():
                errors.append(f"{name}: not shown. {run.stderr[-300:]}")
        errors += [f"{name}: {line}" for line in run.stderr.splitlines() if ":CONSOLE" in line]
    server.shutdown()
    return errors


def main() -> int:
    """Print what is wrong; the exit status is 1 if there is anything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=Path, default=SITE, help="folder of the built site (build/site)")
    parser.add_argument("--screenshots", type=Path, help="folder for an image of each page")
    arguments = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None or not arguments.site.is_dir():
        parser.exit(2, f"Needs the program chromium, and the site in {arguments.site}: mkdocs build\n")
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    problems = broken_links(arguments.site) + console_errors(arguments.site, browser, arguments.screenshots)
    print("\n".join(problems) or "No broken link, no message in a console.")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
