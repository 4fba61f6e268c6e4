"""What this package needs: versions that were tested, and licenses.

    python -m studies dependencies

Lists all packages that `pip install .` brings, as installed here, with the license that each states
in its metadata, and the versions of tests/constraints/. Writes dependencies.md.
"""

import importlib.metadata
import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from studies import ROOT, records
from tfsparse import tables

NAME = "dependencies"
RECORDS = ()
PROJECT = "tfsparse"
# Licenses with obligations for whoever distributes a program that uses the package.
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU|CC-BY-SA|SSPL", re.IGNORECASE)
# Used unmodified, which LGPL permits; only requests before 2.26 needs it.
EXCEPTIONS = {"chardet"}


def define_flags():
    records.define_output()


def main():
    records.write_page(NAME, page())


def dependencies():
    """Returns {name: importlib.metadata.Distribution} of all packages that are needed here."""
    found, pending = {}, [PROJECT]
    while pending:
        name = canonicalize_name(pending.pop())
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needed = map(Requirement, found[name].requires or [])
            pending += [n.name for n in needed if not n.marker or n.marker.evaluate({"extra": ""})]
    del found[PROJECT]
    return dict(sorted(found.items()))


def license_of(distribution):
    """Returns the license that a package states, or else the one its license file names; or ""."""
    metadata = distribution.metadata
    classifiers = [
        text.split(" :: ")[-1]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License ::")
    ]
    texts = [file for file in distribution.files or [] if "LICENSE" in file.name.upper()]
    stated = [metadata.get("License-Expression"), *classifiers, metadata.get("License")]
    stated += re.findall("Apache License|MIT License|BSD", texts[0].read_text()) if texts else []
    return next((text.split("\n")[0].strip()[:60] for text in stated if text), "")


def versions(name):
    """Returns {package: version} of the constraints file `name`."""
    path = ROOT / "tests" / "constraints" / f"{name}.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in requirements}


def required():
    """Returns the direct requirements of this package, list of `Requirement`, without extras."""
    stated = importlib.metadata.distribution(PROJECT).requires
    return [Requirement(text) for text in stated if "extra ==" not in text]


def page():
    """Returns the Markdown page."""
    oldest, newest, found = versions("oldest"), versions("newest"), dependencies()
    direct = {canonicalize_name(each.name) for each in required()}
    rows = {
        name: [oldest.get(name, ""), newest.get(name, ""), license_of(package)]
        for name, package in found.items()
    }
    return records.fill(
        NAME,
        direct=tables.markdown(
            ["package", "oldest", "newest", "license"],
            [[name, *cells] for name, cells in rows.items() if name in direct],
        ),
        others=tables.markdown(
            ["package", "newest", "license"],
            [[name, *cells[1:]] for name, cells in rows.items() if name not in direct],
        ),
    )
