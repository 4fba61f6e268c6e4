"""Facts on which measured speeds depend: processor, cores, accelerators, package versions."""

import collections
import importlib.metadata
import os
import pathlib
import platform
import re

from tfsparse.errors import UsageError

# Instruction sets on which the ratio of two times depends: wide vectors, and dot products of 8-bit
# integers.
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def facts(packages=()):
    """Returns the facts of this machine.

    Args:
        packages: names of installed packages whose versions are included.

    Returns:
        {"cpu": name and its instruction sets among INSTRUCTIONS, "cores": number, "system": name,
        "python": version, package: version}.
    """
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        text = ""
    names = re.findall(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"^(?:flags|Features)\s*:(.+)", text, re.MULTILINE)
    found = [each for each in INSTRUCTIONS if flags and each in flags[1].split()]
    name = names[0] if names else platform.processor() or platform.machine()
    return {
        "cpu": f"{name} ({', '.join(found)})" if found else name,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions(packages),
    }


def versions(packages):
    """Returns {package: version} of installed packages.

    Raises:
        UsageError: if one is not installed.
    """
    try:
        return {name: importlib.metadata.version(name) for name in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"The package {error.name} is not installed. Run: pip install -e ."
        ) from error


def cores():
    """Returns the number of processor cores that this process may use (see taskset)."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def hardware():
    """Returns the hardware on which this process trains, a str for people."""
    from tfsparse import backend  # which imports what computes

    names = collections.Counter(backend.devices())
    gpus = [f"{count} x {name}" for name, count in names.items()]
    count = cores()
    return ", ".join([*gpus, f"{count} CPU core{'s' * (count > 1)}", facts()["cpu"]])


def has_slow_bfloat16():
    """Returns whether TensorFlow trains several times slower in bfloat16 than in float32 here.

    Its convolutions in bfloat16 are fast on accelerators and with AVX-512. On other x86 processors,
    a step of ResNet8 took 8 times as long as in float32, of ResNet18 of width 16, 13 times.
    """
    from tfsparse import backend

    cpu = facts()["cpu"]
    others = backend.NAME != "tensorflow" or backend.devices()
    return not others and "avx2" in cpu and "avx512f" not in cpu
