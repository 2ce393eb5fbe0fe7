"""The command `mrcnn`: detect, export, describe, evaluate, convert and train without writing Python.

`mrcnn --help` lists the commands:

    mrcnn detect photos/ --model nucleus-light
"""

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from mrcnn.cli.app import app
    except ImportError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit(
            "The command mrcnn needs the packages typer and rich. Install them with: pip install "
            '"keras-mrcnn[cli]"'
        )
    app(prog_name="mrcnn")
