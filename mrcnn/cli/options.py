"""Options that would have no effect in a command: errors that name them."""

from collections.abc import Mapping, Sequence
from typing import Any


def given_options(options: Mapping[str, Any]) -> list[str]:
    """Return the names of the options that the user gave, such as --copy-images.

    Values that stand for no option are None, False and empty lists.
    """
    return [
        f"--{name.replace('_', '-')}"
        for name, value in options.items()
        if not (value is None or value is False or value == [])
    ]


def refuse(options: Mapping[str, Any], sentence: str) -> None:
    """Raise ValueError if a user has given options that would have no effect.

    Args:
        options: The values of these options by name.
        sentence: The message, with {given} in place of the options.
    """
    if names := given_options(options):
        *others, last = names
        listed = f"{', '.join(others)} and {last}" if others else last
        raise ValueError(sentence.format(given=listed))


def refuse_setting(settings: Sequence[str], name: str, option: str) -> None:
    """Raise ValueError if --set gives a setting that an option of the command controls.

    Args:
        settings: Texts NAME=VALUE.
        name: Name of the setting.
        option: The option, such as "--batch".
    """
    if any(text.partition("=")[0] == name for text in settings):
        raise ValueError(f"--set {name} cannot be used here, because {option} sets it. Use {option}.")
