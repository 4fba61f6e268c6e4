"""The facts of a machine on which figures of speed depend."""

import importlib.metadata
import os
import pathlib
import platform

import pytest

from tfsparse import UsageError, backend, machine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "model name\t: A CPU\nflags\t: fpu avx2 avx512f avx512_vnni sse\n",
            "A CPU (avx2, avx512f, ",
        ),
        ("model name\t: Old\nflags\t: fpu avx\n", "Old"),
        (
            "Features\t: fp asimd asimddp\n",
            f"{platform.processor() or platform.machine()} (asimddp)",
        ),
    ],
)
def test_the_processor_is_named_with_the_instructions_that_matter(text, name, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda _: text)
    cpu = machine.facts()["cpu"]
    assert cpu.startswith(name)
    assert ("(" in cpu) == ("(" in name)


@pytest.mark.parametrize(
    ("flags", "name", "gpus", "slow"),
    [
        ("avx2 fma", "tensorflow", [], True),
        ("avx2 avx512f", "tensorflow", [], False),
        ("avx2 fma", "jax", [], False),
        ("avx2 fma", "tensorflow", ["a GPU"], False),
        ("asimddp", "tensorflow", [], False),
    ],
)
def test_bfloat16_is_slow_in_tensorflow_on_x86_processors_without_avx512(
    flags, name, gpus, slow, monkeypatch
):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda _: f"flags\t: {flags}\n")
    monkeypatch.setattr(backend, "NAME", name)
    monkeypatch.setattr(backend, "devices", lambda: gpus)
    assert machine.has_slow_bfloat16() == slow


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux has it")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert machine.cores() == machine.facts()["cores"] == 1
        assert "1 CPU core," in machine.hardware()
    finally:
        os.sched_setaffinity(0, before)
    assert machine.cores() == len(before)


def test_versions_are_those_installed():
    versions = {"numpy": importlib.metadata.version("numpy")}
    assert machine.versions(["numpy"]) == versions
    assert versions.items() <= machine.facts(["numpy"]).items()
    with pytest.raises(UsageError, match="The package no-such-package is not installed"):
        machine.versions(["no-such-package"])
