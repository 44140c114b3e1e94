"""Text from a model, made safe for a terminal."""

import re

__all__ = ["visible"]

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """Returns the text with control characters (all but tab and newline) shown as U+FFFD.

    A model of bytes may write any of them, and an escape sequence could recolour or rename the reader's terminal.
    """
    return CONTROL.sub("\ufffd", text)
