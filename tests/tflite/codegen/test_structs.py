"""What is known of the structs in C, from the header, is what a compiler makes of them."""

import pytest

from tests.tflite.codegen.programs import emulated
from tflite.codegen import emulation, structs
from tfsparse.errors import UsageError


@emulated
def test_sizes_of_structs(tmp_path):
    lines = ['#include "tfsparse_kernels.h"']
    for name in structs._structs():
        size = structs.size_of(name)
        lines.append(f'_Static_assert(sizeof(tfsparse_{name}) == {size}, "{name}");')
    assert len(lines) == 6
    (tmp_path / "sizes.c").write_text("\n".join(lines))
    emulation.compile_sources(
        [tmp_path / "sizes.c"], "cortex-m4", tmp_path, ("-Wno-c11-extensions",)
    )


@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("window_height", 256, "0 to 255"),
        ("pad_left", -1, "0 to 255"),
        ("channels", 65_536, "0 to 65,535"),
        ("activation_min", -129, "-128 to 127"),
    ],
)
def test_numbers_that_do_not_fit(field, value, limits):
    low, high = (int(limit.replace(",", "")) for limit in limits.split(" to "))
    for good in (low, high):
        structs.check("pooling", {field: good})
    with pytest.raises(UsageError, match=rf"take {limits} as {field}.*Received: {value:,}"):
        structs.check("pooling", {field: value})
