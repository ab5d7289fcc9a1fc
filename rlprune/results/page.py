"""``report.html``: one file with everything that is known of a run, drawn by the reader's browser.

The page is ``page/page.html`` with its style, its script and the data put in; nothing is fetched. The data is
JSON in which no character can end its element, the script writes it as text only, and the page's security
policy runs no other script: what a file name or an error message holds is never markup.
"""

import base64
import hashlib
import html
import json
from importlib import resources
from string import Template
from typing import Any

SCRIPTS = ("dom.js", "plot.js", "table.js", "goals.js", "frontier.js", "learning.js", "page.js")
"""The parts of the script, in the order in which they are joined."""


def page_html(title: str, data: dict[str, Any]) -> str:
    """The page.

    Args:
        title: Its title, any text.
        data: What :func:`rlprune.results.page_data.page_data` gives.
    """
    style = _part("page.css")
    script = "\n".join(_part(name) for name in SCRIPTS)
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    return Template(_part("page.html")).substitute(
        title=html.escape(title), policy=policy, style=style, script=script, data=_embedded(data)
    )


def _part(name: str) -> str:
    return resources.files("rlprune.results").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The text of an element as a source of the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(data: dict[str, Any]) -> str:
    """JSON for the inside of a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
