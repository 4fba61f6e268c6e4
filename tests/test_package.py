"""What setup.cfg declares is all that the code needs."""

import configparser
import glob

from tests.conftest import ROOT

CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")


def files():
    """Returns all files of the three packages, as paths relative to the project's folder."""
    found = (path for name in ("tfsparse", "tflite", "zoo") for path in (ROOT / name).rglob("*"))
    return {
        str(path.relative_to(ROOT))
        for path in found
        if path.is_file() and "__pycache__" not in path.parts and "partial-" not in path.name
    }


def test_every_folder_with_code_is_a_declared_package():
    folders = {name.rpartition("/")[0] for name in files() if name.endswith(".py")}
    declared = CONFIG["options"]["packages"].split()
    assert sorted(declared) == sorted(folder.replace("/", ".") for folder in folders)


def test_every_other_file_is_declared_package_data():
    declared = set()
    for package, patterns in CONFIG["options.package_data"].items():
        folder = ROOT / package.replace(".", "/")
        for pattern in patterns.split(","):
            found = glob.glob(pattern.strip(), root_dir=folder)
            assert found, f"{package}: {pattern} matches no file"
            declared |= {str((folder / name).relative_to(ROOT)) for name in found}
    assert {name for name in files() if not name.endswith(".py")} - declared == set()
