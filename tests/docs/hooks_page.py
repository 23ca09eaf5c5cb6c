"""The reference of hooks, made of ``hookspecs.py``: ``python -m tests.docs.hooks_page >docs/reference/hooks.md``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType

from pytest_azchroot import clouds, gate, hookspecs, image
from pytest_azchroot.report import result
from tests.docs.markdown import ROOT

PAGE = ROOT / "docs" / "reference" / "hooks.md"

VALUES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (image, ("Image",)),
    (gate, ("Verdict", "Answer")),
    (clouds, ("Artifact",)),
    (result, ("ImageResult", "TestResult")),
    (clouds, ("Cloud", "Order", "Disk", "Attachment")),
)
"""What hooks are handed and hand back, with the modules they come from."""


def hooks() -> dict[str, Callable[..., object]]:
    """Every hook by name, in the order of the file."""
    return {name: function for name, function in vars(hookspecs).items() if name.startswith("pytest_azchroot_")}


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# Hooks",
            "",
            "This page is made of `pytest_azchroot/hookspecs.py`.",
            "",
            *_prose(hookspecs.__doc__ or ""),
            "",
            *(line for name, function in hooks().items() for line in _hook(name, function)),
            "## Values",
            "",
            "What hooks are handed. All but `Image` are frozen. `Chroot` is described with the",
            "[fixtures](fixtures.md#chroot), `ImageSpec` has an attribute for each option of [image.yaml](image-yaml.md).",
            "",
            *(line for module, names in VALUES for name in names for line in _value(module, name)),
        ]
    )


def _hook(name: str, function: Callable[..., object]) -> Iterator[str]:
    signature = str(inspect.signature(function)).replace("'", "")
    options = getattr(function, "pytest_spec", {})
    yield from (f"## {name}", "", f"`{name}{signature}`", "")
    yield from _prose(inspect.getdoc(function) or "")
    yield ""
    if options.get("firstresult"):
        yield from ("The first implementation that returns something wins.", "")


def _value(module: ModuleType, name: str) -> Iterator[str]:
    """A class: what it says of itself, and its attributes with the strings below them."""
    tree = ast.parse(inspect.getsource(module))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    yield from (f"### {name}", "", *_prose(ast.get_docstring(found) or ""), "")
    described = dict(re.findall(r":param (\w+): (.+?)(?=\n:|\Z)", ast.get_docstring(found) or "", re.DOTALL))
    for node, following in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            attribute, kind = ast.unparse(node.target), ast.unparse(node.annotation)
            text = _string(following) or described.get(attribute, "")
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            attribute, kind, text = ast.unparse(node.targets[0]), repr(node.value.value), _string(following)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            attribute, kind = node.name, "" if _is_property(node) else f"({ast.unparse(node.args)})"
            kind = f"{kind} -> {ast.unparse(node.returns)}" if node.returns else kind
            kind = kind.removeprefix(" -> ").replace("(self, ", "(").replace("(self)", "()")
            text = ast.get_docstring(node) or ""
        else:
            continue
        yield " ".join([f"- `{attribute}`", f"(`{kind}`)" + (":" if text else ""), *filter(None, _prose(text))])
    yield ""


def _is_property(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(each) == "property" for each in node.decorator_list)


def _string(node: ast.stmt | None) -> str:
    is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return inspect.cleandoc(str(node.value.value)) if is_string else ""  # type: ignore[union-attr]


def _prose(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: ``::`` begins an example, ``:param`` has been read elsewhere."""
    text = re.sub(r"^:param (?:.|\n)+?(?=^:|\Z)", "", inspect.cleandoc(docstring), flags=re.MULTILINE)
    text = re.sub(r":raises (\w+): ", r"Raises `\1`: ", text)
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text).replace("``", "`")
    prose, marker, example = text.strip().partition("::\n")
    prose = prose.strip()
    yield from (line.rstrip() for line in (prose + (":" if marker and not prose.endswith(".") else "")).splitlines())
    if marker:
        code = inspect.cleandoc(example)
        yield from ("", "```python", *_imports(code), code, "```")


def _imports(code: str) -> list[str]:
    """What an example uses from the standard library, so that it can be pasted as it is."""
    modules = {"os.": "import os", "datetime.": "import datetime", "json.": "import json"}
    lines = [line for use, line in modules.items() if use in code and line not in code]
    if "Path(" in code:
        lines.append("from pathlib import Path")
    return [*lines, "", ""] if lines else []


if __name__ == "__main__":
    print(page(), end="")
