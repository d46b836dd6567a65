"""One trained net looked into: responses, gradients, probes, lesions, paths, landscape, the solution by construction.

Reads run folders, never trains.
"""

from reslearn.analysis.blockwise import (
    assembled,
    block_shapes,
    droppable,
    interchangeable,
    without_body,
)
from reslearn.analysis.construct import Construction, construct
from reslearn.analysis.exactness import BlockCheck, check_blocks
from reslearn.analysis.gradients import Gradients, LayerGradient, first_to_last, gradients
from reslearn.analysis.identity_fit import chain, identity_loss, inputs
from reslearn.analysis.landscape import (
    Grid,
    LossLine,
    Point,
    across,
    along,
    barrier,
    between,
    filter_normalized,
    grid,
    moved,
)
from reslearn.analysis.lesions import Lesions, kendall_tau, lesions
from reslearn.analysis.paths import BlockwiseBackward, PathLength, Paths, paths
from reslearn.analysis.probes import StageProbe, probes
from reslearn.analysis.record import (
    gradients_by_moment,
    gradients_record,
    landscape_record,
    lesion_record,
    paths_record,
    probes_record,
    responses_record,
)
from reslearn.analysis.responses import LayerResponse, responses
from reslearn.analysis.signal import forward_signal
from reslearn.analysis.subject import Subject, check_same_recipe, write_analysis

__all__ = [
    "BlockCheck",
    "BlockwiseBackward",
    "Construction",
    "Gradients",
    "Grid",
    "LayerGradient",
    "LayerResponse",
    "Lesions",
    "LossLine",
    "PathLength",
    "Paths",
    "Point",
    "StageProbe",
    "Subject",
    "across",
    "along",
    "assembled",
    "barrier",
    "between",
    "block_shapes",
    "chain",
    "check_blocks",
    "check_same_recipe",
    "construct",
    "droppable",
    "filter_normalized",
    "first_to_last",
    "forward_signal",
    "gradients",
    "gradients_by_moment",
    "gradients_record",
    "grid",
    "identity_loss",
    "inputs",
    "interchangeable",
    "kendall_tau",
    "landscape_record",
    "lesion_record",
    "lesions",
    "moved",
    "paths",
    "paths_record",
    "probes",
    "probes_record",
    "responses",
    "responses_record",
    "without_body",
    "write_analysis",
]
