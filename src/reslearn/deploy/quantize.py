"""Static quantization of an ONNX file to 8 bits by ONNX Runtime, calibrated on training images.

Weights have one scale per output channel and activations one scale per tensor. Activations are
unsigned and weights signed: the instructions of x86 (VNNI) multiply these two. Only convolutions
and what stands between them are quantized. The preprocessing, the head and the softmax stay
float32: they are a small part of the time, and the head decides the probabilities.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from reslearn.deploy.engines import InputArray, import_extra, log_from

_QUANTIZED = ("Conv", "Add", "Relu", "MaxPool")


def quantize(
    path: Path, quantized_path: Path, input_name: str, calibration: list[InputArray]
) -> None:
    """Write the int8 form of an ONNX file. Its metadata are kept, with the precision int8.

    Args:
        path: A file of `write_onnx`.
        quantized_path: Where to write.
        input_name: Name of the input of the graph.
        calibration: Batches of training images, whose activations set the scales.
    """
    onnx, tools = import_extra("onnx"), import_extra("onnxruntime.quantization")
    model = onnx.load(path)
    # Without the advice to simplify the graph first, which the exporter has done.
    with log_from(logging.ERROR):
        tools.quantize_static(
            str(path),
            str(quantized_path),
            _reader(tools, input_name, calibration),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_exclude=_before_the_network(model.graph),
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
        )
    quantized = onnx.load(quantized_path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(quantized, {**metadata, "precision": "int8"})
    quantized.producer_name, quantized.producer_version = model.producer_name, ""
    onnx.save(quantized, quantized_path)


def _before_the_network(graph: Any) -> list[str]:
    """Return the nodes that no convolution precedes: the resize and the normalization."""
    behind: set[str] = set()
    excluded: list[str] = []
    for node in graph.node:  # ONNX stores them in the order of the computation
        if node.op_type == "Conv" or any(name in behind for name in node.input):
            behind.update(node.output)
        else:
            excluded.append(node.name)
    return excluded


def _reader(tools: Any, input_name: str, calibration: list[InputArray]) -> Any:
    """Return the batches as the quantizer reads them."""

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(calibration)

        def get_next(self) -> dict[str, InputArray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {input_name: batch}

    return Reader()
