"""What pyproject.toml cannot say: a wheel may have modules that mypyc compiles, from the source that runs interpreted.

``DAPHNE_NG_COMPILE=1 pip install .`` makes such a wheel. Without the variable it is pure, and nothing asks for mypy.
``[tool.daphne-ng.compiled]`` in pyproject.toml names the modules: folders, modules beside them, and each module of the
folders that stays interpreted, with the reason. ``tests/unit/test_compiled_rules.py`` keeps the rules of all of them.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent

COMPILES = os.environ.get("DAPHNE_NG_COMPILE") == "1"
"""Whether the wheel that is being built is to have compiled modules."""

LEVEL = os.environ.get("DAPHNE_NG_COMPILE_LEVEL", "3")
"""The number of the C compiler's ``-O``. Less than 3 is for tests, whose build takes a fraction of the time then."""

MYPY = "mypy==2.4.1"
"""What compiles: the one version that `_mended_runtime` was made for. A newer one needs a look there, and all tests."""

# mypy's own settings stand in pyproject.toml, for the check of types. A build knows of no other package, for what is
# installed beside it would make other code.
_OPTIONS = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]

# How an exception that is thrown into a compiled coroutine is passed on to what that awaits. Python 3.12 has deprecated
# the three arguments, and the application would get the warning (mypyc issue 1214).
_THROW = "res = PyObject_CallFunctionObjArgs(_m, type, value, traceback, NULL);"
_THROW_MENDED = "res = PyObject_CallOneArg(_m, value);"

# What makes a class. The type of a coroutine is called as run_Exchange_gen, and asyncio, which writes tasks to logs,
# looks for the name of a coroutine on the coroutine itself: so it gets that of its function, Exchange.run.
_CLASS = "PyObject *CPyType_FromTemplate(PyObject *template,\n"
_CLASS_MADE = "    Py_XDECREF(dummy_class);\n\n    // Unlike"
_CLASS_NAMED = f"""\
    if (!name_coroutine(&t->ht_type))
        goto error;

{_CLASS_MADE}"""
_NAME_COROUTINE = """\
static bool name_coroutine(PyTypeObject *type) {
    const char *function = type->tp_name;
    const char *end = function + strlen(function) - strlen("_gen");
    if (end <= function || strcmp(end, "_gen") != 0)
        return true;
    // The name of a class begins with a capital letter, after an underscore if it is private.
    const char *owner = NULL;
    for (const char *at = function + 1; at + 1 < end; at++)
        if (*at == '_' && at[1] >= 'A' && at[1] <= 'Z')
            owner = at[-1] == '_' && at - 1 > function ? at - 1 : at;
    PyObject *name = PyUnicode_FromStringAndSize(function, (owner ? owner : end) - function);
    PyObject *of = owner ? PyUnicode_FromStringAndSize(owner + 1, end - owner - 1) : NULL;
    PyObject *qualname = of && name ? PyUnicode_FromFormat("%U.%U", of, name) : owner ? NULL : Py_XNewRef(name);
    bool done = name && qualname && PyDict_SetItemString(type->tp_dict, "__name__", name) == 0
        && PyDict_SetItemString(type->tp_dict, "__qualname__", qualname) == 0;
    Py_XDECREF(name);
    Py_XDECREF(of);
    Py_XDECREF(qualname);
    PyType_Modified(type);
    return done;
}

"""

_MENDS = ((_THROW, _THROW_MENDED), (_CLASS_MADE, _CLASS_NAMED), (_CLASS, _NAME_COROUTINE + _CLASS))


def compiled_paths() -> list[str]:
    """Return the files of the modules that are compiled, relative to the root."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table = tomllib.load(file)["tool"]["daphne-ng"]["compiled"]
    found = [path for folder in table["folders"] for path in sorted((ROOT / folder).rglob("*.py"))]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py"]
    for name in (*table["interpreted"], *table["modules"]):
        if not (ROOT / name).is_file():
            raise FileNotFoundError(f"pyproject.toml names {name} for the compiler, and there is none")
    return [*(name for name in names if name not in table["interpreted"]), *table["modules"]]


# The compiled modules as extensions for setuptools.
def _extensions() -> list[Any]:
    from mypyc.build import mypycify

    made: list[Any] = mypycify([*_OPTIONS, *compiled_paths()], opt_level=LEVEL, group_name="daphne_ng")
    mended = _mended_runtime()
    for extension in made:
        extension.include_dirs.insert(0, mended)
    return made


# Write the mended file of mypyc's runtime to a directory of its own, and return that. The generated code includes the
# runtime's files by name, and the compiler takes the first that it finds.
def _mended_runtime() -> str:
    import mypyc

    source = (Path(mypyc.__file__).parent / "lib-rt" / "misc_ops.c").read_text()
    for found, mended in _MENDS:
        if source.count(found) != 1:
            raise RuntimeError(f"mypyc's runtime has changed: see how it does now what was {found!r}")
        source = source.replace(found, mended)
    directory = Path("build", "mypyc-runtime")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "misc_ops.c").write_text(source)
    return str(directory)


if __name__ == "__main__":
    from setuptools import setup

    # The hook for what a build requires runs this too, and reports `setup_requires`. Only these two need the compiler.
    builds = COMPILES and not {"bdist_wheel", "build_ext"}.isdisjoint(sys.argv)
    setup(ext_modules=_extensions() if builds else [], setup_requires=[MYPY] if COMPILES else [])
