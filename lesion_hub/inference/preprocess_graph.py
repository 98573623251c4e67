"""Resize, crop and normalisation as an ONNX graph: what `preprocess.Framing` and `Normalisation` do, for images of any size.

ONNX's Resize with antialiasing and the cubic of -0.5 is Pillow's, and on bytes it rounds where Pillow does: fewer than one
pixel in a thousand is another level of 255, and then the next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lesion_hub.hub.graph import OPSET, require_onnx
from lesion_hub.hub.onnx_file import INPUT
from lesion_hub.inference.preprocess import Framing, Normalisation

IMAGE, RESIZED = "image", "resized"
"""What a graph from pixels takes, (H, W, 3) uint8, upright RGB; and the same resized, (h, w, 3) uint8, not yet cropped.

Members that frame alike give the same again when they are given what the first one resized, and much sooner.
"""

_IR_VERSION = 8  # that of the opset's time, which old runtimes read
_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def preprocessing(framing: Framing, normalisation: Normalisation) -> Any:
    """Write the ONNX model that turns an (H, W, 3) uint8 ``image`` into (1, 3, H', W') float32 ``pixel_values``."""
    onnx = require_onnx()
    nodes = _Nodes(onnx)
    size = nodes.add("Slice", nodes.add("Shape", IMAGE), nodes.whole(0), nodes.whole(2))  # (height, width)
    resized = _resized(nodes, framing, size)
    whole = nodes.add(
        "Resize",
        nodes.add("Unsqueeze", IMAGE, nodes.whole(0)),
        "",
        "",
        nodes.add("Concat", nodes.whole(1), resized, nodes.whole(3), axis=0),
        mode=_MODES[framing.interpolation],
        antialias=1,
        cubic_coeff_a=-0.5,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
    )
    nodes.add("Squeeze", whole, nodes.whole(0), output=RESIZED)
    framed = _framed(nodes, framing, whole, resized)
    # Where there is padding it is zero, which stands for the fill colour: that is taken off before and counted in here.
    std, mean = np.asarray(normalisation.std, np.float64), np.asarray(normalisation.mean, np.float64)
    scale, shift = 1 / (255 * std), (mean - np.asarray(framing.fill) / 255) / std
    normalised = nodes.add("Sub", nodes.add("Mul", framed, nodes.single(scale)), nodes.single(shift))
    nodes.add("Transpose", normalised, perm=[0, 3, 1, 2], output=INPUT)

    image = onnx.helper.make_tensor_value_info(IMAGE, onnx.TensorProto.UINT8, ["height", "width", 3])
    prepared = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, [1, 3, *framing.size])
    smaller = onnx.helper.make_tensor_value_info(RESIZED, onnx.TensorProto.UINT8, ["resized_height", "resized_width", 3])
    graph = onnx.helper.make_graph(nodes.made, "preprocessing", [image], [prepared, smaller], nodes.constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)


class _Nodes:
    """The nodes and constants of a graph that is being written, each named by its number."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.made: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node; return what its output is called."""
        name = output or f"{operation.lower()}_{len(self.made)}"
        self.made.append(self.onnx.helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def whole(self, *values: int) -> str:
        """Add a constant vector of whole numbers."""
        return self._constant(np.asarray(values, np.int64))

    def double(self, *values: float) -> str:
        """Add a constant vector in double precision, in which Python computes sizes."""
        return self._constant(np.asarray(values, np.float64))

    def single(self, values: Any) -> str:
        """Add a constant vector in single precision."""
        return self._constant(np.asarray(values, np.float32))

    def as_double(self, name: str) -> str:
        return self.add("Cast", name, to=self.onnx.TensorProto.DOUBLE)

    def rounded(self, name: str) -> str:
        """Round to whole numbers, half to even as Python does."""
        return self.add("Cast", self.add("Round", name), to=self.onnx.TensorProto.INT64)

    def _constant(self, values: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(values, name))
        return name


def _resized(nodes: _Nodes, framing: Framing, size: str) -> str:
    """Compute the (height, width) of the whole image after resizing: the numbers of ``Framing.place``."""
    if framing.mode == "squash":
        return nodes.whole(*framing.scale_size)
    if framing.mode == "center" and framing.scale_size[0] == framing.scale_size[1]:
        short = nodes.add("ReduceMin", size, nodes.whole(0), keepdims=1)
        return nodes.add(
            "Div", nodes.add("Mul", size, nodes.whole(framing.scale_size[0])), short
        )  # of whole numbers: truncates
    sides = nodes.as_double(size)
    ratios = nodes.add("Div", sides, nodes.double(*framing.scale_size))
    fit = "ReduceMax" if framing.mode == "border" else "ReduceMin"
    return nodes.rounded(nodes.add("Div", sides, nodes.add(fit, ratios, nodes.whole(0), keepdims=1)))


def _framed(nodes: _Nodes, framing: Framing, pixels: str, resized: str) -> str:
    """Crop the (1, h, w, 3) bytes to the input's size, and pad them where they do not reach it: as float32."""
    wanted, zero = nodes.whole(*framing.size), nodes.whole(0)
    excess = nodes.add("Sub", resized, wanted)
    half = nodes.add("Div", nodes.as_double(nodes.add("Max", excess, zero)), nodes.double(2.0))
    corner = nodes.rounded(half)
    end = nodes.add("Add", corner, wanted)  # beyond the image, the slice ends with it
    cropped = nodes.add("Cast", nodes.add("Slice", pixels, corner, end, nodes.whole(1, 2)), to=nodes.onnx.TensorProto.FLOAT)
    above_fill = nodes.add("Sub", cropped, nodes.single(framing.fill))
    missing = nodes.add("Max", nodes.add("Neg", excess), zero)
    before = nodes.add("Div", missing, nodes.whole(2))
    after = nodes.add("Sub", missing, before)
    pads = nodes.add("Concat", zero, before, zero, zero, after, zero, axis=0)
    return nodes.add("Pad", above_fill, pads, nodes.add("Squeeze", nodes.single([0.0])))
