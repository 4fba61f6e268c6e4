"""Everything that the reference documents has types; tests/typed_program.py says whether they help.

mypy checks the types themselves, in .ci/run.
"""

import inspect
import pkgutil
import re

import pytest

import zoo
from tests.conftest import ROOT

PAGES = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
NAMES = re.findall(r"^::: (\S+)$", PAGES, re.MULTILINE)


def functions(found, module):
    """Yields the public functions that `module` defines in `found`, a module, class, or function.

    A method that overrides another one has its types and is left out.
    """
    if inspect.isfunction(found):
        yield found
        return
    parents = inspect.getmro(found)[1:] if inspect.isclass(found) else ()
    for name, member in vars(found).items():
        member = member.fget if isinstance(member, property) else member
        if getattr(member, "__module__", None) != module:
            continue
        is_public = not name.startswith("_") and not any(hasattr(each, name) for each in parents)
        if inspect.isfunction(member) or inspect.isclass(member):
            yield from functions(member, module) if is_public or name == "__init__" else ()


@pytest.mark.parametrize("name", NAMES)
def test_documented_names_are_typed(name):
    found = pkgutil.resolve_name(name)
    module = found.__name__ if inspect.ismodule(found) else found.__module__
    for function in functions(found, module):
        parameters = list(inspect.signature(function).parameters.values())
        without = [each.name for each in parameters if each.annotation is each.empty]
        assert set(without) <= {"self", "_"}, function.__qualname__
        if function.__name__ != "__init__":
            assert "return" in function.__annotations__, function.__qualname__


def test_the_zoo_has_the_names_that_it_lists():
    assert sorted(zoo.__all__) == sorted(zoo._MODULES)
    assert all(hasattr(zoo, name) for name in zoo.__all__)


def test_functions_without_types_are_found():
    assert [each.__name__ for each in functions(zoo.prediction, "zoo.prediction")] == ["predict"]
    names = {each.__qualname__ for each in functions(zoo.data, "zoo.data")}
    assert {"Dataset.__init__", "Dataset.read", "open_dataset"} <= names
