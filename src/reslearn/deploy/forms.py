"""Write a network as a file for another runtime: ONNX, OpenVINO, torch.export, int8.

Every form is made from the one module `PixelsToProbabilities`, takes batches of any length, and
holds the card of the model. OpenVINO and int8 are converted from the ONNX form.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from reslearn.deploy.engines import OPENVINO_KEY, InputArray, import_extra, log_from
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.preprocess_graph import PixelsToProbabilities
from reslearn.deploy.quantize import quantize
from reslearn.interop.exported_files import CARD_FILE

INPUT_NAMES = {"image": "image", "crop": "crop", "tensor": "input"}
OUTPUT_NAME = "probabilities"
# The dynamic axes of each input. The last one of pixels has the channels.
_AXES = {
    "image": {0: "batch", 1: "height", 2: "width"},
    "crop": {0: "batch"},
    "tensor": {0: "batch"},
}
# An example of an odd shape, so that no axis is mistaken for another one.
_EXAMPLE_BATCH, _EXAMPLE_EXTRA_PX = 2, (11, 29)


class ExportForm(StrEnum):
    """What `reslearn export --to` writes beside the dialects of other projects."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH_EXPORT = "torch-export"
    INT8 = "int8"

    @property
    def suffix(self) -> str:
        """The end of the file name. An OpenVINO model has a .bin file beside it."""
        suffixes = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "int8": ".onnx"}
        return suffixes[self.value]


class FormWriter:
    """Write one network in several forms. The recording and the ONNX file are made once.

    Args:
        module: Network and preprocessing, on the CPU, in evaluation mode.
        card: The card of the model. It has the input kind of `module`.
        folder: A folder for temporary files.
    """

    def __init__(self, module: PixelsToProbabilities, card: ModelCard, folder: Path) -> None:
        self.module = module
        self._card = card
        self.folder = folder

    def write(
        self, form: ExportForm, path: Path, *, calibration: list[InputArray] | None = None
    ) -> None:
        """Write a form.

        Args:
            form: The form to write.
            path: Where to write. The suffix must be `form.suffix`.
            calibration: Batches of training images, for int8.

        Raises:
            ValueError: If a library is not installed.
        """
        if form is ExportForm.TORCH_EXPORT:
            metadata = json.dumps(self._card.to_metadata())
            with silent_exporter():
                torch.export.save(self._program, path, extra_files={CARD_FILE: metadata})
        elif form is ExportForm.ONNX:
            shutil.copyfile(self._onnx_path, path)
        elif form is ExportForm.OPENVINO:
            _convert_to_openvino(self._onnx_path, self._card, path)
        else:
            assert calibration, "int8 needs training images"
            quantize(self._onnx_path, path, INPUT_NAMES[self._card.input_kind], calibration)

    @functools.cached_property
    def _program(self) -> torch.export.ExportedProgram:
        return export_program(self.module, self._card)

    @functools.cached_property
    def _onnx_path(self) -> Path:
        path = self.folder / ".float32.onnx"
        write_onnx(self._program, self._card, path)
        return path


def export_program(module: PixelsToProbabilities, card: ModelCard) -> torch.export.ExportedProgram:
    """Record the module with torch.export. The batch, and the size of images, stay dynamic."""
    size_px, channels = card.preprocess.size_px, card.preprocess.channels
    example = torch.zeros(_EXAMPLE_BATCH, size_px, size_px, channels, dtype=torch.uint8)
    if card.input_kind == "image":
        height, width = (size_px + extra for extra in _EXAMPLE_EXTRA_PX)
        example = torch.zeros(_EXAMPLE_BATCH, height, width, channels, dtype=torch.uint8)
    elif card.input_kind == "tensor":
        example = torch.zeros(_EXAMPLE_BATCH, channels, size_px, size_px)
    axes = {axis: torch.export.Dim(name) for axis, name in _AXES[card.input_kind].items()}
    program = torch.export.export(module, (example,), dynamic_shapes=(axes,))
    for node in program.graph.nodes:  # lines and paths of our source code
        node.meta.pop("stack_trace", None)
    return program


def write_onnx(program: torch.export.ExportedProgram, card: ModelCard, path: Path) -> None:
    """Write a recorded module as ONNX, with named axes and the card as metadata."""
    onnx = import_extra("onnx")
    import_extra("onnxscript")
    input_name = INPUT_NAMES[card.input_kind]
    with silent_exporter():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[input_name],
            output_names=[OUTPUT_NAME],
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _strip(model)
    for axis, name in _AXES[card.input_kind].items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.producer_name, model.producer_version = "reslearn", card.reslearn_version
    model.graph.name = card.name
    for key, value in card.to_metadata().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _strip(model: Any) -> None:
    """Remove what the exporter notes about its source code: names of modules, lines, paths."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del graph.value_info[:]  # its sizes have the names that the exporter drew


def _convert_to_openvino(onnx_path: Path, card: ModelCard, path: Path) -> None:
    openvino = import_extra("openvino")
    model = openvino.convert_model(str(onnx_path))
    for key, value in card.to_metadata().items():
        model.set_rt_info(value, [OPENVINO_KEY, key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


@contextlib.contextmanager
def silent_exporter() -> Iterator[None]:
    """Keep the exporter from printing its progress and what it misses."""
    silent_output = contextlib.redirect_stdout(io.StringIO())
    with log_from(logging.ERROR, "torch.onnx"), warnings.catch_warnings(), silent_output:
        warnings.simplefilter("ignore")
        yield
