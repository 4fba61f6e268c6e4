"""No dependency whose licence would bind who ships a model or a program made with this package."""

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from studies.dependencies import (
    COPYLEFT,
    EXCEPTIONS,
    _required,
    dependencies,
    licence,
    versions,
)


def test_licences_are_stated_and_permissive():
    licences = {name: licence(package) for name, package in dependencies().items()}
    assert {"tensorflow", "keras", "numpy", "h5py"} <= set(licences)
    assert not [name for name, stated in licences.items() if not stated]
    copyleft = {name for name, stated in licences.items() if COPYLEFT.search(stated)}
    assert copyleft <= EXCEPTIONS


def test_tested_versions_are_within_the_declared_bounds():
    oldest, newest = versions("oldest"), versions("newest")
    for requirement in map(Requirement, _required()):
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(newest[name]), name
        lower = [s.version for s in requirement.specifier if s.operator == ">="]
        if lower:
            # The lower bound itself was tested: 2.0.2 is the first of "at least 2.0" there is.
            assert requirement.specifier.contains(oldest[name]), name
            assert oldest[name].startswith(lower[0].split(".")[0]), name
