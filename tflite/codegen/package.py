"""A package in C: sources of a model, checked on this machine before they are written."""

import dataclasses
import hashlib
import pathlib
import tempfile

import numpy as np

from tflite.codegen import host
from tflite.codegen.program import make_program
from tflite.codegen.writing import PREFIX, write_sources
from tflite.runtimes import FileModel
from tfsparse.errors import UsageError

TEST_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class Package:
    """What was written, and how it was checked.

    Attributes:
        program: the `tflite.codegen.program.Program`.
        images, logits: int8 arrays [n, ...]: images, and what LiteRT's reference kernels compute.
        checked: number of images for which the C, compiled for this machine, has the same bits; 0
            without a compiler.
        prefix: of the names in the C.
    """

    program: object
    images: np.ndarray
    logits: np.ndarray
    checked: int
    prefix: str = PREFIX


def write_package(content, images, folder, title, prefix=PREFIX):
    """Writes an int8 .tflite file as C, with a self-test of the first images.

    Args:
        content: bytes of the file.
        images: float array [n, h, w, c], in the range that the file takes.
        folder: pathlib.Path of an empty folder.
        title: name of the model, for the README.
        prefix: what all names in the C begin with.

    Returns:
        The `Package`.

    Raises:
        UsageError: if the file cannot be written as C, the prefix cannot begin names, or an output
            differs.
    """
    program = make_program(content)
    file = FileModel(content, "reference")
    codes = np.concatenate([file.source.encode(image[None]) for image in images])
    outputs = file.outputs(images)
    tested = codes[:TEST_IMAGES], outputs[:TEST_IMAGES]
    write_sources(program, content, *tested, folder, title, prefix)
    if host.compiler() is None:
        return Package(program, codes, outputs, 0, prefix)
    with tempfile.TemporaryDirectory() as build:
        found = host.run(host.build(folder, pathlib.Path(build), prefix=prefix), codes)
    different = int((found != outputs).any(1).sum())
    if different:
        raise UsageError(
            f"Nothing is written. In C, the logits of {different} of {len(codes)} images are not "
            "those of LiteRT's reference kernels. Use the runtime tflm, and report this model."
        )
    return Package(program, codes, outputs, len(codes), prefix)


def hash_of_sources(folder):
    """Returns the sha256, 64 hexadecimal digits, of the sources in a folder."""
    contents = [path.read_bytes() for path in sorted(pathlib.Path(folder).glob("*.[ch]"))]
    return hashlib.sha256(b"".join(contents)).hexdigest()
