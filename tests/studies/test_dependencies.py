"""No dependency has a license that binds those who ship what they made with this package."""

from packaging.utils import canonicalize_name

from studies.dependencies import (
    COPYLEFT,
    EXCEPTIONS,
    dependencies,
    license_of,
    page,
    required,
    versions,
)
from tests.studies.conftest import RESULTS


def rows(text):
    """Returns the rows of all tables of a page, {package: cells}."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines if name not in ("package", "---")}


def test_licenses_are_stated_and_permissive():
    licenses = {name: license_of(package) for name, package in dependencies().items()}
    assert {"tensorflow", "keras", "numpy", "h5py"} <= set(licenses)
    assert not [name for name, stated in licenses.items() if not stated]
    copyleft = {name for name, stated in licenses.items() if COPYLEFT.search(stated)}
    assert copyleft <= EXCEPTIONS


def test_tested_versions_are_within_the_declared_bounds():
    oldest, newest = versions("oldest"), versions("newest")
    for requirement in required():
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(newest[name]), name
        lower = [s.version for s in requirement.specifier if s.operator == ">="]
        if lower:
            # The lower bound itself was tested: 2.0.2 is the first of "at least 2.0" there is.
            assert requirement.specifier.contains(oldest[name]), name
            assert oldest[name].startswith(lower[0].split(".")[0]), name


def test_page_has_the_tested_versions():
    """Its licenses are those of the packages installed when it was made."""
    oldest, newest = versions("oldest"), versions("newest")
    committed, found = (rows(text) for text in (_committed(), page()))
    assert committed.keys() & found.keys() >= {canonicalize_name(r.name) for r in required()}
    for name, (*stated, _) in committed.items():
        expected = [oldest.get(name, ""), newest.get(name, "")]
        assert stated == expected[-len(stated) :], name
    direct, _ = _committed().split("They require:")
    assert rows(direct).keys() == {canonicalize_name(r.name) for r in required()}


def _committed():
    return (RESULTS / "dependencies.md").read_text(encoding="utf-8")
