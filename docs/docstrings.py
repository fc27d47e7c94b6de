"""What the reference makes of docstrings: examples become code, and the help of a config's fields their docstrings."""

import ast
import importlib
import re
from typing import Any

import griffe


_DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n.+)*", re.MULTILINE)  # up to the blank line after it
_FLAG = re.compile(r" *# doctest: .*")


class Examples(griffe.Extension):
    """Fences the examples in the text of docstrings, which Markdown would take for quotations."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence those of `obj`."""
        if obj.docstring is not None:
            plain = _FLAG.sub("", obj.docstring.value)
            obj.docstring.value = _DOCTEST.sub(r"\g<indent>```pycon\n\g<0>\n\g<indent>```", plain)


class FieldHelp(griffe.Extension):
    """Gives a config's fields, `field(default=…, metadata={"help": …})`, their help and their default.

    Griffe reads sources, and help is made of constants of other modules: so it is asked of the class itself.
    """

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Put the help into the docstring, and the default where the call of `field` stood."""
        call = getattr(node, "value", None)
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "field" or attr.parent is None:
            return
        fields = getattr(importlib.import_module(attr.module.path), attr.parent.name).__dataclass_fields__
        if text := fields[attr.name].metadata.get("help"):
            attr.docstring = griffe.Docstring(text, parent=attr)
        default = {keyword.arg: keyword.value for keyword in call.keywords}.get("default")
        attr.value = None if default is None else ast.unparse(default)
