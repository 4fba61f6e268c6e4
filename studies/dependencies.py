"""What this package needs: versions that were tested, and licences.

    python -m studies.dependencies --output=docs

Lists all packages that `pip install .` brings, as installed here, with the licence that each states
in its metadata, and the versions of tests/constraints/. Writes --output/dependencies.md.
"""

import importlib.metadata
import pathlib
import re

from absl import flags
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tfsparse.files import write_bytes
from zoo.commands import commandline

NAME = "dependencies"
PROJECT = "tfsparse"
CONSTRAINTS = pathlib.Path(__file__).parents[1] / "tests" / "constraints"
# Licences that ask more of who passes on a program that uses the package.
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU|CC-BY-SA|SSPL", re.IGNORECASE)
# Used as it is, which LGPL permits; only requests before 2.26 needs it.
EXCEPTIONS = {"chardet"}

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("output", None, "Folder for the table.", required=True)


def main():
    write_bytes(pathlib.Path(FLAGS.output) / f"{NAME}.md", page())


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


def licence(distribution):
    """Returns the licence that a package states, or else the one its licence file names; or ""."""
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
    lines = (CONSTRAINTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in requirements}


def page():
    """Returns the Markdown page."""
    oldest, newest = versions("oldest"), versions("newest")
    direct = {canonicalize_name(Requirement(text).name) for text in _required()}
    found = dependencies()
    own = [(name, found[name]) for name in found if name in direct]
    others = [(name, found[name]) for name in found if name not in direct]
    lines = [
        "# Dependencies",
        "",
        "From `python -m studies.dependencies`, on Linux. The oldest versions are tested "
        "with Python 3.10 (`pip install -e '.[tests]' -c tests/constraints/oldest.txt`), the "
        "newest with Python 3.11 and 3.13 (`newest.txt`, which the test command in the README "
        "installs). Licences are what each package states. None is copyleft but that of chardet "
        "(LGPL), which only requests 2.25 needs, the version that the extra `attacks` asks for.",
        "",
        "| package | oldest | newest | licence |",
        "|---|---|---|---|",
        *(
            f"| {name} | {oldest.get(name, '')} | {newest.get(name, '')} | {licence(package)} |"
            for name, package in own
        ),
        "",
        "They bring:",
        "",
        "| package | newest | licence |",
        "|---|---|---|",
        *(f"| {name} | {newest.get(name, '')} | {licence(package)} |" for name, package in others),
    ]
    return "\n".join(lines) + "\n"


def _required():
    required = importlib.metadata.distribution(PROJECT).requires
    return [text for text in required if "extra ==" not in text]


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
