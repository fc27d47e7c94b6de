"""What the reference makes of docstrings: examples become code, and the help of a config's fields their docstrings."""

import ast
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
    """Reads `field(default=…, metadata={"help": …})`, f-strings over names of the module among them."""

    def __init__(self) -> None:
        super().__init__()
        self._fields: list[tuple[griffe.Attribute, ast.Call]] = []

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Keep the fields; names that their help speaks of may be defined in modules that are read later."""
        value = getattr(node, "value", None)
        if isinstance(node, ast.AnnAssign) and isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
            self._fields.append((attr, value))

    def on_package(self, **_: Any) -> None:
        """Put the help into the docstrings, and the default where the call of `field` stood."""
        for attr, call in sorted(self._fields, key=lambda pair: "__dataclass_fields__" in ast.unparse(pair[1])):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if isinstance(given.get("metadata"), ast.Dict):
                attr.docstring = griffe.Docstring(_text(given["metadata"].values[0], attr), parent=attr)
            default = given.get("default")
            attr.value = None if default is None else ast.unparse(default)
        self._fields = []


def _text(node: ast.expr, attr: griffe.Attribute) -> str:
    """The help that an expression makes, or that it takes from the field of the same name in another class."""
    source = ast.unparse(node)
    if "__dataclass_fields__" in source:  # Other.__dataclass_fields__["name"].metadata["help"]
        other: Any = attr.module[source.split(".__dataclass_fields__")[0]]
        return str(other.members[attr.name].docstring.value)
    try:
        return str(_value(node, attr.module))
    except Exception as error:
        raise ValueError(f"the help of {attr.path} is no expression of constants: {source}") from error


def _value(node: ast.expr, module: Any) -> Any:
    """What an expression of literals and of constants that `module` defines or imports comes to."""
    names = {}
    for name in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}:
        names[name] = _value(*_definition(name, module))
    return eval(compile(ast.Expression(node), "<help>", "eval"), {"__builtins__": {}}, names)


def _definition(name: str, module: Any) -> tuple[ast.expr, Any]:
    """The expression that `name` is set to, and the module where that is; imports are followed."""
    member = module.members.get(name)
    if member is not None and member.is_alias:
        path, _, name = member.target_path.rpartition(".")
        return _definition(name, module.modules_collection[path])
    for node in ast.parse(module.filepath.read_text(encoding="utf-8")).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])  # several in `A, B = NAMES = (…)`
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value, module  # type: ignore[attr-defined]
    raise KeyError(f"{module.path} does not set {name}")
