"""The shell commands of the pages: their scripts exist and know the options."""

import re
import shlex
import subprocess
import sys

import doc_pages as pages
import pytest

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"(samples|docs|tests)/\S+\.py$")


def commands():
    """Script or module -> the arguments that pages give it."""
    found = {}
    for page in pages.PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in re.split(r"\n|&&", block.replace("\\\n", " ")):
                words = shlex.split(line, comments=True)
                for place, word in enumerate(words):
                    if SCRIPT.match(word):
                        found.setdefault((word,), []).append(words[place + 1 :])
                    elif word.startswith("benchmarks."):
                        found.setdefault(("-m", word), []).append(words[place + 1 :])
    return found


@pytest.mark.parametrize(
    "program, calls", [pytest.param(*item, id=item[0][-1]) for item in commands().items()]
)
def test_the_script_knows_the_options(program, calls):
    if program[0].startswith("tests/"):
        assert (pages.ROOT / program[0]).is_file()
        return
    run = subprocess.run(
        [sys.executable, *program, "--help"], cwd=pages.ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    for arguments in calls:
        for option in arguments:
            name = option.split("=")[0]
            if name.startswith("--"):
                assert name in run.stdout, f"{program[-1]} has no {name}"
        if arguments and not arguments[0].startswith("-"):
            assert arguments[0] in run.stdout, f"{program[-1]} has no command {arguments[0]}"
