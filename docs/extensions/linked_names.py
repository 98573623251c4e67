"""Code in a text that is a documented name, in a guide or a docstring, becomes a link to it.

Docstrings and guides write names as code, as they read best in an editor and on a forge; nobody writes roles. A dotted name is
looked up whole; a class by its name alone, a function by it where it has an underscore or is written with ``()``.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

PACKAGE = "lesion_hub"


def links_of(env: Any) -> dict[str, tuple[str, str]]:
    """Every way to write a documented name, with its page and anchor; None of what means several."""
    found: dict[str, set[tuple[str, str]]] = {}
    for name, entry in env.domains["py"].objects.items():
        place = (entry.docname, entry.node_id)
        spellings = {name, *defined_as(name)}
        words = name.split(".")
        last, owner = words[-1], words[-2] if len(words) > 1 else ""
        if last[0].isupper() or "_" in last.strip("_"):
            spellings.add(last)
        if owner[:1].isupper():
            spellings |= {f"{owner}.{last}", f"{owner}.{last}()"}
        else:
            spellings |= {f"{last}()", f"{owner}.{last}"}
        for spelling in spellings:
            found.setdefault(spelling, set()).add(place)
    return {spelling: places.pop() for spelling, places in found.items() if len(places) == 1}


def defined_as(name: str) -> list[str]:
    """Where a documented object is defined, if not where it is documented."""
    package, _, last = name.rpartition(".")
    try:
        found = getattr(import_module(package), last)
    except (ImportError, AttributeError):
        return []  # a member of a class
    home = getattr(found, "__module__", None)
    return [f"{home}.{last}"] if isinstance(home, str) and home.startswith(PACKAGE) and callable(found) else []


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    links = app.env.temp_data.get("linked_names") if hasattr(app.env, "temp_data") else None
    links = links or links_of(app.env)
    app.env.temp_data["linked_names"] = links
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        target = links.get(text) or links.get(text.removesuffix("()")) if re.fullmatch(r"[\w.]+(\(\))?", text) else None
        if target is None or inside(literal, nodes.reference, nodes.title):
            continue
        page, anchor = target
        link = make_refnode(app.builder, docname, page, anchor, literal.deepcopy(), text)
        literal.replace_self(link)


def inside(node: Any, *kinds: type) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True}
