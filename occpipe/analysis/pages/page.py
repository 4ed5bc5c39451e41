"""One HTML file from the parts in `static`: nothing is loaded from elsewhere, and no text of strangers is markup.

The data is JSON in a script block that no browser runs, and the scripts build text nodes of it. The policy of the page
allows the script and the style of this package, by their hashes, and pictures inside the page; nothing else.

The scripts are ES modules, which a browser does not load from `file://`. So they are joined into one module in the page,
in the order of their imports; their names at the top level are all different.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from string import Template

from occpipe.analysis.pages.types import PageData, StudyData

PARTS = Path(__file__).parent / "static"
_STYLES = ("page.css", "plots.css", "gallery.css", "picture.css", "cards.css", "viewer.css", "study.css")
_SCRIPTS = ("dom.js", "plots.js", "picture.js", "why.js", "filters.js", "gallery.js")
_PAGES = {
    "report": ("report.js",),
    "review": ("verdicts.js", "review.js"),
    "preview": ("preview.js",),
    "study": ("verdicts.js", "study.js"),
}
_LINKS = re.compile(r"^import [^;]*;\n|^export (?=const|class|function)", re.MULTILINE)
"""What links modules with each other; within one module there is nothing to link."""


def assemble(kind: str, title: str, data: PageData | StudyData) -> str:
    """The page of a `kind` (report, review, preview, study) over `data`, as its script reads it."""
    style = _joined(_STYLES)
    script = _LINKS.sub("", _joined((*_SCRIPTS, *_PAGES[kind])))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    template = Template((PARTS / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title),
        policy=html.escape(policy, quote=True),
        style=style,
        script=script,
        data=escaped(data),
    )


def escaped(data: object) -> str:
    """JSON as it stands in a page: `<` could end the block or begin a comment in it; as an escape JSON means the same."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _joined(names: tuple[str, ...]) -> str:
    return "\n" + "\n".join((PARTS / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
