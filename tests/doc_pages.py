"""The Markdown pages of the repository and the code blocks in them.

    python tests/doc_pages.py

lists every Python block: where it stands, and whether a test runs it.
"""

import sys
from pathlib import Path
from unittest import SkipTest

from sybil import Example, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parents[1]
MODEL_CARD = ROOT / "samples" / "nucleus" / "MODEL_CARD.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), MODEL_CARD, ROOT / "benchmarks" / "README.md"]
)


def name(page: Path) -> str:
    """The page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> list[Example]:
    """The Python blocks of a page and its `<!-- skip: ... -->` lines, in order; they share a namespace."""
    sybil = Sybil([PythonCodeBlockParser(), SkipParser()], path=str(ROOT), pattern=name(page))
    return list(sybil.parse(page))


def run(example: Example) -> str:
    """Run one block and return "", or the reason in the page for not running it."""
    try:
        example.evaluate()
    except SkipTest as reason:
        return str(reason)
    return ""


def main() -> None:
    """Print every Python block with its page, line, first line, and the reason for which it is skipped."""
    for page in PAGES:
        reason = ""
        for example in examples(page):
            if isinstance(example.parsed, tuple):  # a skip: (action, reason)
                reason = f"skipped: {example.parsed[1]}"
                continue
            first = str(example.parsed).strip().splitlines()[0]
            print(f"{name(page)}:{example.line}: {first[:60]:60} {reason or 'runs'}")
            reason = ""


if __name__ == "__main__":
    sys.exit(main())
