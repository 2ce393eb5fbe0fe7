"""What a weight file can hold of the settings of a model.

Files may come from strangers, so the reader limits sizes and names. The writer keeps the same limits. What it
leaves out of a file costs less than a file that cannot be read.
"""

import json
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 4 * 2**20  # bytes
MAX_ENTRIES = 65_536
MAX_NAME = 200  # characters

# The key of `Config.to_dict` that lists settings whose values are functions.
CALLABLES = "CALLABLES"


def is_name(value: Any) -> bool:
    """Return whether a value is a printable name of at most MAX_NAME characters."""
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()


def is_setting_name(name: Any) -> bool:
    """Return whether a setting may have this name. Anything else could replace a method of the Config."""
    return is_name(name) and name.isidentifier() and name.isupper() and name[0] != "_"


def clean_name(name: Any) -> str:
    """Return a name that a weight file can hold: printable, with at most MAX_NAME characters."""
    return "".join(c if c.isprintable() else " " for c in str(name))[:MAX_NAME]


def fitting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a table that fit in one text of a weight file, the small ones first of all.

    Args:
        values: JSON values by name.
    """
    sizes = {name: len(json.dumps({name: value})) for name, value in values.items()}
    kept: set[str] = set()
    room = MAX_TEXT
    for name in sorted(sizes, key=sizes.__getitem__):
        if sizes[name] <= room and len(kept) < MAX_ENTRIES:
            kept.add(name)
            room -= sizes[name]
    return {name: value for name, value in values.items() if name in kept}


def storable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a weight file can hold. Small ones, such as those of `Config`, have priority.

    Args:
        settings: `Config.to_dict` of a model.
    """
    named = {name: value for name, value in settings.items() if is_setting_name(name)}
    if CALLABLES in named:
        callables = named[CALLABLES].items()
        named[CALLABLES] = {name: clean_name(value) for name, value in callables if is_setting_name(name)}
    return fitting(named)
