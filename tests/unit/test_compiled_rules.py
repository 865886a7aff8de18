"""The rules of the modules that mypyc compiles: what runs otherwise there than it does interpreted, or not at all.

The list of the modules is in pyproject.toml, ``[tool.daphne-ng.compiled]``. The other half of the rules is mypy's: with
``warn_unreachable`` it reports a test of what it believes to be known, as an attribute that was tested before an await
or before a call that may change it. Compiled code leaves the test out; so it is asked of a method instead.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator

import pytest

from setup import ROOT, compiled_paths

PATHS = compiled_paths()


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def test_the_list_names_what_there_is() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table = settings["tool"]["daphne-ng"]["compiled"]
    assert len(PATHS) == len(set(PATHS)) > 40
    assert all(reason.strip() for reason in table["interpreted"].values())
    assert not {*table["modules"], *table["interpreted"]} - {*PATHS, *table["interpreted"]}
    assert settings["tool"]["mypy"]["warn_unreachable"] is True


# -- constants are Final: compiled code looks others up by name, each time -------------------------------


# Type variables, and names for types, which annotations alone use.
def _is_type(name: str, value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func) == "TypeVar"
    named_as_type = name.lstrip("_")[0].isupper() and not name.isupper()
    return named_as_type and isinstance(value, ast.Subscript | ast.BinOp | ast.Constant | ast.Name)


def _assigned_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                name = ast.unparse(target)
                if name != "__all__" and not _is_type(name, statement.value):
                    yield name
        elif isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("Final"):
            yield ast.unparse(statement.target)


def test_constants_are_final(tree: ast.Module) -> None:
    assert list(_assigned_names(tree)) == []


# -- what mypy was told to be silent about ---------------------------------------------------------------


def test_nothing_that_is_called_unreachable_is_kept(path: str) -> None:
    # Type checkers that are right and one that is told to be silent differ in nothing; compiled code has no such branch.
    lines = (ROOT / path).read_text().splitlines()
    assert [line for line in lines if "type: ignore" in line and "unreachable" in line] == []


# -- tuples have no identity: compiled code makes them anew ----------------------------------------------


def _tuples(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
    return names


# Names of constants whose value is a tuple, in any compiled module.
TUPLES = {name for path in PATHS for name in _tuples(ast.parse((ROOT / path).read_text())) if name.isupper()}


def test_no_tuple_is_known_by_its_identity(tree: ast.Module) -> None:
    tuples = TUPLES | _tuples(tree)
    compared = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and any(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops)
        if not any(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))  # None, mostly
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Tuple) or ast.unparse(side) in tuples
    ]
    assert compared == []


# -- the bounds of a slice are evaluated twice, unless mypyc knows how to cut what is cut -----------------


# They cost their time twice, but do nothing.
HARMLESS = {"len", "min", "max"}


def test_the_bounds_of_slices_do_nothing(tree: ast.Module) -> None:
    assert [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Slice)
        for part in ast.walk(node)
        if isinstance(part, ast.Await | ast.NamedExpr)
        or (isinstance(part, ast.Call) and ast.unparse(part.func) not in HARMLESS)
    ] == []


# -- attributes of instances are deleted only where their class says so ----------------------------------


def test_deleted_attributes_are_declared(tree: ast.Module) -> None:
    for owner in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        declared: set[str] = set()
        for statement in owner.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__deletable__":
                declared = set(ast.literal_eval(statement.value))
        deleted = {
            target.attr
            for node in ast.walk(owner)
            if isinstance(node, ast.Delete)
            for target in node.targets
            if isinstance(target, ast.Attribute)
        }
        assert deleted == declared, owner.name


# -- one name of an exception has one type in a function -------------------------------------------------


def test_a_name_stands_for_one_type_of_exception(tree: ast.Module) -> None:
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        types: dict[str, str] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and node.name is not None and node.type is not None:
                kind = ast.unparse(node.type)
                assert types.setdefault(node.name, kind) == kind, (function.name, node.name)


# -- classes -------------------------------------------------------------------------------------------


def test_exceptions_declare_what_belongs_to_the_class(tree: ast.Module) -> None:
    # A default on the class of an exception would not be set: its instances are made by the interpreter.
    for owner in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        bases = [ast.unparse(base) for base in owner.bases]
        if any(base.endswith(("Error", "Exception", "Request", "Fault")) for base in bases):
            for statement in owner.body:
                assert not isinstance(statement, ast.Assign), (owner.name, ast.unparse(statement))
                if isinstance(statement, ast.AnnAssign) and statement.value is not None:
                    assert ast.unparse(statement.annotation).startswith("ClassVar"), owner.name


# -- a subclass is called only as its base is ------------------------------------------------------------
# mypyc puts where a call goes before the attributes, also before inherited ones: the methods of a base that has
# attributes and is not called would read and write them at the wrong places, and crash.


def _called_alone(trees: list[ast.Module]) -> set[str]:
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    called = {
        node.name
        for node in classes.values()
        if any(isinstance(statement, ast.FunctionDef) and statement.name == "__call__" for statement in node.body)
    }
    return {name for name in called for base in _base_names(classes[name]) if base in classes and base not in called}


def test_no_subclass_is_called_whose_base_is_not() -> None:
    assert _called_alone([ast.parse((ROOT / path).read_text()) for path in PATHS]) == set()


def test_a_subclass_that_alone_is_called_is_found() -> None:
    call = "\n  def __call__(self): pass\n"
    assert _called_alone([ast.parse(f"class A: pass\nclass B(A):{call}class C(B):{call}class D:{call}")]) == {"B"}


# -- an attribute is annotated in one class: annotated again in a subclass, it is traversed twice ---------
# Then the garbage collector takes what it refers to for referred to from elsewhere, and never frees it.


def _base_names(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        yield ast.unparse(base.value if isinstance(base, ast.Subscript) else base)


# The attributes that a class annotates in its body, and those that it sets or annotates anywhere.
def _attributes(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    annotated = {
        ast.unparse(statement.target)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("ClassVar")
    }
    of_self = {
        found.attr
        for found in ast.walk(node)
        if isinstance(found, ast.Attribute) and isinstance(found.ctx, ast.Store) and ast.unparse(found.value) == "self"
    }
    return annotated, annotated | of_self


def _annotated_again(trees: list[ast.Module]) -> set[str]:
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def inherited(node: ast.ClassDef) -> set[str]:
        names = set()
        for base in _base_names(node):
            if base in classes and "Protocol" not in {*_base_names(classes[base])}:
                names |= _attributes(classes[base])[1] | inherited(classes[base])
        return names

    return {f"{node.name}.{name}" for node in classes.values() for name in _attributes(node)[0] & inherited(node)}


def test_no_attribute_is_annotated_again_in_a_subclass() -> None:
    assert _annotated_again([ast.parse((ROOT / path).read_text()) for path in PATHS]) == set()


def test_what_is_annotated_again_is_found() -> None:
    source = "class A:\n  def __init__(self, x):\n    self.x = x\nclass B(A): pass\nclass C(B):\n  x: int\n  y: int\n"
    assert _annotated_again([ast.parse(source)]) == {"C.x"}
