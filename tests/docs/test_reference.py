"""The reference has every public module and every public name."""

import pkgutil
import re
from pathlib import Path

import doc_pages as pages
import pytest
from test_compatibility import NAMES

import mrcnn

API = pages.ROOT / "docs" / "api"
PACKAGE = Path(mrcnn.__file__).parent
PARTS = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if not path.name.startswith(("_", ".")) and (path.suffix == ".py" or (path / "__init__.py").exists())
)
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in API.glob("*.md"))


@pytest.mark.parametrize("part", PARTS)
def test_every_module_and_package_has_a_place(part):
    assert re.search(rf"^::: mrcnn\.{part}$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(mrcnn.__all__)))
def test_the_index_lists_every_name_of_the_package(name):
    assert f"`mrcnn.{name}`" in (API / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["model", "utils"])
def test_names_that_live_elsewhere_are_listed(module):
    from importlib import import_module

    table = (API / f"{module}.md").read_text(encoding="utf-8")
    for name in NAMES[module].split():
        value = None if "." in name else getattr(import_module(f"mrcnn.{module}"), name)
        if getattr(value, "__module__", f"mrcnn.{module}") != f"mrcnn.{module}":
            assert f"| `{name}` |" in table, name


def test_links_to_names_lead_to_existing_names():
    names = re.findall(r"\[`(mrcnn[\w.]*)`\]\[\]", TEXT)
    assert names
    for name in names:
        module, _, last = name.rpartition(".")
        assert hasattr(pkgutil.resolve_name(module), last), name
