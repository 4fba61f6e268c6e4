"""The facts that a .tflite file contains about itself: one JSON object in the file's metadata.

It is in the schema's Model.metadata, under the name "tfsparse", which interpreters ignore. It holds

    labels              names of the classes in the order of the outputs, or null
    input_range         smallest and largest value of an image, [0, 1] by default: an 8-bit image is
                        divided by 255 and brought into this range, then quantized with scale and
                        zero point of the input tensor
    pattern             pattern of the periodic layers, or null
    density             non-zero weights / stored weights of all convolution kernels, 0 to 1
    dataset             data set on which the model was trained, or null
    source_sha256       sha256 of the weights of the Keras model that was converted
    calibration         images that set the ranges of a quantized file, and their sha256, or null
    producer            "tfsparse" and its version
    converter           "tensorflow" and its version
"""

import json

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.compact import drop_unused_buffers
from tflite.flatbuffer import pack, unpack
from tfsparse.errors import UsageError

NAME = b"tfsparse"


def embed(content, facts):
    """Returns the bytes of a .tflite file with `facts`, a dict, in place of its metadata."""
    model = unpack(content)
    model.metadata = [entry for entry in model.metadata or () if entry.name != NAME]
    drop_unused_buffers(model)
    data = json.dumps(facts, separators=(",", ":"), sort_keys=True).encode()
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)
    return pack(model)


def read(content):
    """Returns the metadata that `embed` wrote, a dict; {} if there is none.

    Raises:
        UsageError: if the bytes are not a .tflite file or its metadata is damaged.
    """
    if content[4:8] != b"TFL3":
        raise UsageError("Cannot read the metadata: this is not a .tflite file.")
    try:
        model = schema.Model.GetRootAsModel(content, 0)
        for index in range(model.MetadataLength()):
            if model.Metadata(index).Name() == NAME:
                data = model.Buffers(model.Metadata(index).Buffer()).DataAsNumpy()
                return dict(json.loads(data.tobytes()))
    except Exception as error:  # arbitrary bytes can break the parser anywhere
        raise UsageError(f"Cannot read the metadata of the .tflite file: {error}") from error
    return {}
