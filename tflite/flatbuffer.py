"""Turns the bytes of a .tflite file into the objects of its schema, and back."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # of constants, as the schema requires


def unpack(content):
    """Returns the `schema.ModelT` of a file's bytes."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def pack(model):
    """Returns the bytes of a `schema.ModelT`."""
    builder = _Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator_name(code):
    """Returns the name of a `schema.OperatorCodeT` of a file: "CONV_2D", or a custom operator's."""
    if code.customCode:
        return code.customCode.decode()
    # Old files have the code in the deprecated field; codes above 127 are in the new one.
    return _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


class _Builder(flatbuffers.Builder):
    """A builder that aligns constants, as the generated code does not."""

    def CreateNumpyVector(self, x):  # noqa: N802 (flatbuffers' name)
        if x.dtype != np.uint8 or len(x) < _ALIGNMENT:
            return super().CreateNumpyVector(x)
        self.StartVector(x.itemsize, x.size, _ALIGNMENT)
        self.head -= x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        return self.EndVector()
