"""What is recorded of finished runs of the queue: folders as train.py and evaluate leave them."""

import json

import pytest

from studies import full_width, queue, records
from tfsparse import UsageError

REPORT = {name: 1 for name in full_width.OF_REPORT}
REPORT |= {"seed": 0, "epochs": 20, "seconds_per_epoch": 90.0, "recipe": {"loss": "standard"}}
PGD = {"accuracy": 0.4, "examples": 1000, "settings": {"steps": 50, "restarts": 2}}


def write(folder, loss="standard", results=None):
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(REPORT | {"recipe": {"loss": loss}}))
    if results:
        (folder / queue.ROBUST).write_text(json.dumps({"results": results}))


def test_finished_runs_are_recorded(run_study, tmp_path):
    workdir = tmp_path / "runs"
    workdir.mkdir()
    write(workdir / "resnet18_robust_seed0", "hybrid", {"pgd": PGD})
    write(workdir / "resnet18_seed0")
    write(workdir / "resnet18_robust_dnr5_seed0", "hybrid")  # not attacked yet
    (workdir / "vgg16_seed0").mkdir()  # not trained yet
    run_study(full_width, f"--workdir={workdir}", f"--output={tmp_path}", "--note=JPEG copy")
    standard, robust = records.read(tmp_path, full_width.NAME, full_width.KEYS)
    assert (standard["row"], standard["hours"], standard["note"]) == ("resnet18", 0.5, "JPEG copy")
    assert "robust_accuracy" not in standard
    assert (robust["row"], robust["robust_accuracy"]) == ("resnet18_robust", 0.4)
    assert robust["robust_attack"] == "PGD-50, 2 restarts"
    assert "autoattack" not in robust
    more = {"results": {"autoattack": {"accuracy": 0.3, "examples": 500}}}
    (workdir / "resnet18_robust_seed0" / full_width.AUTOATTACK).write_text(json.dumps(more))
    full_width.main()  # the run replaces what was recorded of it
    _, robust = records.read(tmp_path, full_width.NAME, full_width.KEYS)
    assert (robust["autoattack"], robust["autoattack_examples"]) == (0.3, 500)


def test_a_folder_without_runs(run_study, tmp_path):
    with pytest.raises(UsageError, match="has no finished run of studies queue"):
        run_study(full_width, f"--workdir={tmp_path}", f"--output={tmp_path}")
