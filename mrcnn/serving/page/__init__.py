"""The page as a single document without links to other files, so it works offline and behind any proxy."""

import base64
import functools
import hashlib
import importlib.resources


@functools.lru_cache(maxsize=1)
def _files() -> dict[str, str]:
    folder = importlib.resources.files("mrcnn.serving.page")
    names = ("index.html", "style.css", "script.js")
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def page_html() -> str:
    """Return the page with its style and its script."""
    files = _files()
    html = files["index.html"].replace("/* style.css */", files["style.css"])
    return html.replace("/* script.js */", files["script.js"])


def page_policy() -> dict[str, str]:
    """Return headers that let browsers run only the style and the script of the page."""
    style, script = (
        base64.b64encode(hashlib.sha256(_files()[name].encode()).digest()).decode()
        for name in ("style.css", "script.js")
    )
    policy = (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
