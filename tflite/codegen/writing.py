"""A program as C sources, with a self-test, a manifest, and a README."""

import hashlib
import json
import re
import string

import numpy as np

import tfsparse
from tflite.codegen.emulation import KERNELS
from tflite.sources import listing, row_listing, template
from tfsparse import files, tables
from tfsparse.errors import UsageError

HEADERS = ("tfsparse_inline.h", "tfsparse_kernels.h")
PREFIX = "tfsparse"
_LICENSE = "/* SPDX-License-Identifier: Apache-2.0 */\n"
_C_TYPES = {name: f"{name}_t" for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32")}


def write_sources(program, content, inputs, outputs, folder, title, prefix=PREFIX):
    """Writes a program as C to a folder.

    Args:
        program: the `tflite.codegen.program.Program`.
        content: bytes of the file that it was made of.
        inputs, outputs: int8 arrays [n, ...]: images and the model's logits for them.
        folder: pathlib.Path of an empty folder.
        title: name of the model.
        prefix: what all names in the C begin with.

    Returns:
        The manifest, a dict.

    Raises:
        UsageError: if the prefix cannot begin names.
    """
    check_prefix(prefix)
    kernels = kernel_sources(program)
    facts = manifest(program, content)
    declarations, definitions = _constants(program)
    statements = [_statements(program, index) for index in range(len(program.calls))]
    labels = program.facts.get("labels")
    values = {
        **_interface(program),
        "title": title.replace("*/", "* /").replace("/*", "/ *"),
        "calls": renamed("\n".join(statements), prefix),
        "declarations": renamed("\n".join(declarations), prefix),
        "definitions": renamed("\n\n".join(definitions), prefix),
        "sources": "\n".join(f"  {name}" for name in kernels),
        "count": len(inputs),
        "inputs": row_listing(inputs),
        "outputs": row_listing(outputs),
        "names": renamed(_NAMES, prefix) if labels else "",
        "definition_of_names": _class_names(labels, prefix) if labels else "",
        "table": table(program),
        "buffer_text": f"{program.plan.bytes:,}",
        "constants": f"{facts['flash']['constants']:,}",
    }
    for name in (*HEADERS, *kernels):
        text = _LICENSE + (KERNELS / name).read_text(encoding="utf-8")
        files.write_bytes(folder / renamed(name, prefix), renamed(text, prefix))
    for name in _TEMPLATES:
        text = renamed(template(f"c/{name}"), prefix)
        files.write_bytes(folder / name, string.Template(text).substitute(values))
    files.write_bytes(folder / "manifest.json", json.dumps(facts, indent=2) + "\n")
    return facts


_TEMPLATES = (
    "model.h",
    "model.c",
    "run.c",
    "weights.h",
    "weights.c",
    "self_test.c",
    "CMakeLists.txt",
    "README.md",
)


def check_prefix(prefix):
    """Raises a `UsageError` if a prefix cannot begin names in C."""
    if not re.fullmatch("[a-z][a-z0-9_]*", prefix, re.ASCII):
        raise UsageError(
            "--prefix must consist of lower-case letters, digits, and _, a letter first. "
            f"Received: {prefix!r}"
        )


def renamed(text, prefix):
    """Returns C with another prefix in all its names: two packages then fit in one program."""
    text = text.replace(f"{PREFIX}_", f"{prefix}_")
    return text.replace(f"{PREFIX.upper()}_", f"{prefix.upper()}_")


def kernel_sources(program):
    """Returns the names of the .c files in kernels/ that a program needs, a sorted list."""
    return sorted({source for call in program.calls for source in call.sources})


def manifest(program, content):
    """Returns what is known about a package, a dict for JSON."""
    tensors = {"input": program.network.graph.source, "output": program.network.graph.target}
    tensors = {name: program.network.graph.tensors[index] for name, index in tensors.items()}
    return {
        "generator": f"tfsparse {tfsparse.__version__}",
        "model": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "labels": program.facts.get("labels"),
        "input_range": program.facts.get("input_range"),
        **{
            name: {
                "shape": list(tensor.shape),
                "type": "int8",
                "scale": tensor.scale,
                "zero_point": tensor.zero_point,
            }
            for name, tensor in tensors.items()
        },
        "buffer": {"bytes": program.plan.bytes, "image_offset": program.places[0]},
        "flash": {"constants": sum(call.flash_bytes for call in program.calls)},
        "macs": program.macs,
        "kernels": kernel_sources(program),
        "layers": [
            {
                "operators": call.layer.title,
                "kernel": call.kernel,
                "output": list(program.network.shapes[call.layer.output]),
                "macs": call.macs,
                "estimated_instructions": call.estimate,
                "constants": call.flash_bytes,
            }
            for call in program.calls
        ],
    }


def table(program):
    """Returns the aligned table of the layers, a str of lines."""
    rows = [["operators", "kernel", "output", "MACs", "estimate", "flash"]]
    for call in program.calls:
        rows.append(
            [
                shortened(call.layer.title),
                call.kernel,
                "x".join(map(str, program.network.shapes[call.layer.output])),
                f"{call.macs:,}" if call.macs else "",
                "" if call.estimate is None else f"{call.estimate:,}",
                f"{call.flash_bytes:,}" if call.flash_bytes else "",
            ]
        )
    return tables.aligned(rows, left=2)


def shortened(title):
    """Returns a title of many operators as the first and the last one."""
    parts = title.split(" + ")
    return title if len(parts) < 3 else f"{parts[0]} ... {parts[-1]}"


# ---- model.h and model.c ----

_NAMES = "\nextern const char *const tfsparse_class_names[TFSPARSE_CLASSES];\n"


def _interface(program):
    """Returns the numbers of model.h."""
    graph = program.network.graph
    source, target = graph.tensors[graph.source], graph.tensors[graph.target]
    height, width, channels = program.network.shapes[0]
    low, high = program.facts.get("input_range") or (0, 1)
    return {
        "low": low,
        "high": high,
        "height": height,
        "width": width,
        "channels": channels,
        "image": program.network.size(0),
        "classes": program.network.size(program.network.target),
        "input_scale": repr(source.scale),
        "input_zero_point": source.zero_point,
        "output_scale": repr(target.scale),
        "output_zero_point": target.zero_point,
        "buffer": program.plan.bytes,
        "offset": program.places[0],
    }


def _class_names(labels, prefix):
    names = ",\n".join(f"    {c_string(label)}" for label in labels)
    head = renamed("const char *const tfsparse_class_names[TFSPARSE_CLASSES]", prefix)
    return f"\n{head} = {{\n{names}}};\n"


def c_string(text):
    """Returns a literal of C for any text, in UTF-8."""
    plain = set(range(32, 127)) - set(b'"\\?')  # ? might begin a trigraph
    codes = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(codes)}"'


def _statements(program, index):
    """Returns the lines of model.c that run one layer."""
    call, name = program.calls[index], _layer_name(index)
    pointers = {"out": _pointer(program, call.layer.output), "layer": f"&{name}"}
    for position, tensor in enumerate(call.layer.inputs):
        pointers[f"in{position}"] = _pointer(program, tensor)
    scratch = program.scratch.get(index)
    pointers["scratch"] = "NULL" if scratch is None else f"memory + {scratch}"
    pointers |= {key: f"{name}_{key}" for key in call.arrays}
    lines = [f"  /* {shortened(call.layer.title)} */"]
    if call.fill is not None:
        size = program.network.size(call.layer.output)
        lines.append(f"  memset({pointers['out']}, {call.fill}, {size});")
    for arguments in call.arguments:
        text = ", ".join(argument.format(**pointers) for argument in arguments)
        lines.append(f"  tfsparse_{call.kernel}({text});")
    return "\n".join(lines)


def _pointer(program, tensor):
    if tensor == program.network.target:
        return "logits"
    return "image" if tensor == 0 else f"memory + {program.places[tensor]}"


def _layer_name(index):
    return f"tfsparse_layer_{index}"


# ---- weights.h and weights.c ----


def _constants(program):
    """Returns the lines of weights.h and the definitions of weights.c; equal arrays are one."""
    declarations, definitions, known = [], [], {}
    for index, call in enumerate(program.calls):
        name, arrays = _layer_name(index), {}
        for key, array in call.arrays.items():
            arrays[key] = f"{name}_{key}"
            if call.struct is None:
                kind = _C_TYPES[array.dtype.name]
                declarations.append(f"extern const {kind} {arrays[key]}[{array.size}];")
                definitions.append(_array(arrays[key], array, static=False))
                continue
            identity = array.dtype.name, array.tobytes()
            if identity not in known:
                known[identity] = arrays[key]
                definitions.append(_array(arrays[key], array))
            arrays[key] = known[identity]
        if call.struct is not None:
            kind = f"const tfsparse_{call.struct} {name}"
            declarations.append(f"extern {kind};")
            fields = ", ".join(
                f".{field} = {arrays.get(value, value)}" for field, value in call.fields.items()
            )
            definitions.append(f"{kind} = {{{_wrapped(fields)}}};")
    return declarations, definitions


def _array(name, array, static=True):
    kind = f"{'static ' if static else ''}const {_C_TYPES[array.dtype.name]}"
    numbers = listing(np.ravel(array))
    return f"{kind} {name}[{array.size}] TFSPARSE_ALIGNED = {{\n{numbers}}};"


def _wrapped(fields):
    lines, line = [], ""
    for field in fields.split(", "):
        if len(line) + len(field) > 90:
            lines.append(line.rstrip())
            line = ""
        line += f"{field}, "
    return "\n    " + "\n    ".join([*lines, line.rstrip(", ")])
