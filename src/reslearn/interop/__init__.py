"""Read and write weights: bundles of reslearn, and checkpoints of other projects."""

from reslearn.interop.bundle import Bundle, BundleError, read_bundle, to_bytes
from reslearn.interop.create import create_model, from_pretrained, list_models, save_pretrained
from reslearn.interop.dialect import Dialect, dialect_named, dialects, unsupported
from reslearn.interop.identify import identify_checkpoint
from reslearn.interop.identity import Identity
from reslearn.interop.inspection import Inspection, inspect_file
from reslearn.interop.load import (
    LoadReport,
    identify,
    load_network,
    load_weights,
    preprocess_origin,
    preprocess_with,
)
from reslearn.interop.read import read_checkpoint
from reslearn.interop.stored import Checkpoint, StoredTensor, WeightsError
from reslearn.interop.write import write_weights

__all__ = [
    "Bundle",
    "BundleError",
    "Checkpoint",
    "Dialect",
    "Identity",
    "Inspection",
    "LoadReport",
    "StoredTensor",
    "WeightsError",
    "create_model",
    "dialect_named",
    "dialects",
    "from_pretrained",
    "identify",
    "identify_checkpoint",
    "inspect_file",
    "list_models",
    "load_network",
    "load_weights",
    "preprocess_origin",
    "preprocess_with",
    "read_bundle",
    "read_checkpoint",
    "save_pretrained",
    "to_bytes",
    "unsupported",
    "write_weights",
]
