"""What ``mkdocs build`` does to a page: links to files outside ``docs/``, not on the site, become text."""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)\s]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with ``[name](../name)`` as ``name``."""
    return _OUTSIDE.sub(r"\1", markdown)
