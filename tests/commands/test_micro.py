"""`tfsparse micro`: the printed bill, and folders that cannot be made."""

import pytest

pytestmark = pytest.mark.slow

MODEL = "resnet8_dnr10_fashion_mnist_small"


def test_writes_a_package(tfsparse, tmp_path, data_dir):
    pytest.importorskip("tflite_micro", reason="there are no wheels for this machine")
    output = tmp_path / "package"
    flags = [f"--model={MODEL}", f"--output={output}", f"--data_dir={data_dir}"]
    status, out, err = tfsparse("micro", *flags)
    assert (status, err) == (0, "")
    assert {path.name for path in output.iterdir()} == {
        *("README.md", "manifest.json", "plain", "plain_compressed")
    }
    assert out.splitlines()[0].startswith("form  ")
    assert "on 100 images" in out
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_folders_that_cannot_be_made(tfsparse, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for output in (tmp_path / "full", tmp_path / "full" / "file"):
        status, _, err = tfsparse("micro", f"--model={MODEL}", f"--output={output}")
        assert status == 1
        assert "new or empty" in err
    status, _, err = tfsparse("micro", "--model=resnet99", f"--output={tmp_path / 'new'}")
    assert status == 1
    assert "resnet99" in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]
