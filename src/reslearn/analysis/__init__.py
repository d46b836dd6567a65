"""Analyses of one trained network. They read run folders, and never train.

The analyses are: responses, gradients, probes, lesions, paths, the loss landscape, the solution by
construction, Grad-CAM, and the evaluation of a network with everything that a user must know.
"""

from reslearn.analysis.construct import construct
from reslearn.analysis.evaluation import evaluation_record, without_pictures
from reslearn.analysis.exactness import check_blocks
from reslearn.analysis.grad_cam import draw_heat_map, grad_cam
from reslearn.analysis.gradients import Gradients, first_to_last, forward_signal, gradients
from reslearn.analysis.identity_fit import chain, identity_loss, inputs
from reslearn.analysis.landscape import (
    loss_along_direction,
    loss_along_line,
    loss_grid,
    random_direction,
)
from reslearn.analysis.lesions import lesions
from reslearn.analysis.paths import paths
from reslearn.analysis.probes import probes
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
from reslearn.analysis.subject import Subject

__all__ = [
    "Gradients",
    "LayerResponse",
    "Subject",
    "chain",
    "check_blocks",
    "construct",
    "draw_heat_map",
    "evaluation_record",
    "first_to_last",
    "forward_signal",
    "grad_cam",
    "gradients",
    "gradients_by_moment",
    "gradients_record",
    "identity_loss",
    "inputs",
    "landscape_record",
    "lesion_record",
    "lesions",
    "loss_along_direction",
    "loss_along_line",
    "loss_grid",
    "paths",
    "paths_record",
    "probes",
    "probes_record",
    "random_direction",
    "responses",
    "responses_record",
    "without_pictures",
]
