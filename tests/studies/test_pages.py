"""Every page of docs/results is what its study makes of the committed record."""

import pytest
from absl import flags

from studies import __main__ as command
from studies import pages
from tests.studies.conftest import RESULTS

# Its licenses are those of the installed packages; test_dependencies.py compares the versions.
STUDIES = [name for name in pages.STUDIES if name != "dependencies"]


@pytest.mark.parametrize("study", STUDIES)
def test_page_is_that_of_its_record(study):
    name, text = pages.page(study, RESULTS)
    assert text == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_all_pages_have_a_study():
    names = {pages.page(study, RESULTS)[0] for study in ("soak", "zoo_table", "accuracy")}
    assert names == {"soak", "zoo", "pattern_accuracy"}
    assert len(list(RESULTS.glob("*.md"))) == len(pages.STUDIES)


def test_pages_are_written(run_study, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "STUDIES", ("soak",))
    (tmp_path / "soak.json").write_bytes((RESULTS / "soak.json").read_bytes())
    run_study(pages, f"--output={tmp_path}")
    assert (tmp_path / "soak.md").read_bytes() == (RESULTS / "soak.md").read_bytes()


@pytest.mark.parametrize("study", command.COMMANDS)
def test_help_lists_the_flags_of_a_study(study, study_flags, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["studies", study, "--help"])
    command.main()
    text = capsys.readouterr().out
    own = flags.FLAGS.get_flags_for_module(f"studies.{study}")
    assert own
    assert all(f"--{flag.name}=" in text for flag in own)
    assert f"python -m studies {study}" in text
    if study != "queue":  # makes no page
        own = {"accelerator": "accelerator.json", "fashion_mnist_small": "fashion_mnist_small.npz"}
        own["screenshot"] = "docs/models.png"
        assert flags.FLAGS["output"].default == own.get(study, "docs/results")


@pytest.mark.parametrize("arguments", [[], ["cost"]])
def test_a_study_that_does_not_exist(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["studies", *arguments])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert capsys.readouterr().err.startswith("error: Studies are accuracy, claims, ")
