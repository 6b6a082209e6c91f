"""Damaged files: whatever is done to the bytes of a model, nothing but an error of ours comes out."""

from __future__ import annotations

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.frontends.onnx import handlers
from assay.verify.frontends.onnx.read import decode
from tests.verify.frontends.onnx_files import ints, model, numbers

NODE = helper.make_node

CONTENT = model(
    [
        NODE("Conv", ["x", "k", "b"], ["h"], strides=[2, 1], pads=[1, 0, 1, 1]),
        NODE("Relu", ["h"], ["r"]),
        NODE("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
        NODE("Transpose", ["p"], ["t"], perm=[0, 2, 3, 1]),
        NODE("Pad", ["t", "pads"], ["q"]),
        NODE("Reshape", ["q", "flat"], ["f"]),
        NODE("Gemm", ["f", "w"], ["y"], alpha=0.5),
    ],
    ("N", 2, 4, 4),
    {
        "k": numbers(0, 2, 2, 2, 2),
        "b": numbers(1, 2),
        "pads": ints(0, 0, 0, 0, 0, 1, 0, 0),
        "flat": ints(0, -1),
        "w": numbers(2, 18, 2),
    },
).SerializeToString()

OPERATIONS = [*sorted({*handlers.traced(), *handlers.constant()}), "Softmax", "If"]
ODD = st.sampled_from([-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 2**16, 2**31 - 1, 2**31, 2**40, 2**62])


def survives(content: bytes) -> None:
    """Read or refused; read wrongly never, which the comparison with onnxruntime would tell by an InternalError."""
    try:
        decoded = decode(content, "file", "file")
    except (InputError, UnsupportedError, ResourceError) as error:
        line = str(error)
    else:
        line = decoded.nodes[-1].op.label
    assert line
    assert "\n" not in line


def test_the_model_itself_is_read() -> None:
    assert decode(CONTENT, "file", "file").output_size == 2


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 8))
        content[place : place + length] = data.draw(st.binary(max_size=8))
    survives(bytes(content))


@given(st.integers(0, len(CONTENT)))
def test_truncated_bytes(length: int) -> None:
    survives(CONTENT[:length])


@settings(max_examples=100)
@given(st.data())
def test_odd_numbers_where_numbers_stand(data: st.DataObject) -> None:
    """Attributes, shapes, lengths and constants of a file that is otherwise in order."""
    proto = onnx.ModelProto.FromString(CONTENT)
    places = [*(a.ints for node in proto.graph.node for a in node.attribute if a.ints)]
    places += [tensor.dims for tensor in proto.graph.initializer]
    for _ in range(data.draw(st.integers(1, 2))):
        numbers_ = data.draw(st.sampled_from(places))
        numbers_[data.draw(st.integers(0, len(numbers_) - 1))] = data.draw(ODD)
        tensor = data.draw(st.sampled_from([t for t in proto.graph.initializer if t.name in ("pads", "flat")]))
        if data.draw(st.booleans()) and tensor.raw_data and len(tensor.dims) == 1:
            array = numpy_helper.to_array(onnx.TensorProto.FromString(_whole(tensor)))
            changed = array.copy()
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(ODD)
            tensor.raw_data = changed.tobytes()
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        if data.draw(st.integers(0, 9)) == 0:
            dim.dim_value = data.draw(ODD)
    survives(proto.SerializeToString())


def _whole(tensor: onnx.TensorProto) -> bytes:
    """The tensor with the length that its data have."""
    twin = onnx.TensorProto()
    twin.CopyFrom(tensor)
    twin.dims[:] = [len(tensor.raw_data) // 8]
    return twin.SerializeToString()


@settings(max_examples=100)
@given(st.data())
def test_operations_and_names_that_are_swapped(data: st.DataObject) -> None:
    proto = onnx.ModelProto.FromString(CONTENT)
    names = sorted({name for node in proto.graph.node for name in (*node.input, *node.output, "")})
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(proto.graph.node)))
        if data.draw(st.booleans()):
            node.op_type = data.draw(st.sampled_from(OPERATIONS))
        else:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
    survives(proto.SerializeToString())
