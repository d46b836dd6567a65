"""One trained net looked into: responses, gradients, probes, the solution by construction. Reads run folders, never trains."""

from reslearn.analysis.construct import Construction, construct
from reslearn.analysis.exactness import BlockCheck, check_blocks
from reslearn.analysis.gradients import Gradients, LayerGradient, first_to_last, gradients
from reslearn.analysis.identity_fit import chain, identity_loss, inputs
from reslearn.analysis.probes import StageProbe, probes
from reslearn.analysis.record import gradients_by_moment, gradients_record, probes_record, responses_record
from reslearn.analysis.responses import LayerResponse, responses
from reslearn.analysis.signal import forward_signal
from reslearn.analysis.subject import Subject, plain, write_analysis

__all__ = [
    "BlockCheck",
    "Construction",
    "Gradients",
    "LayerGradient",
    "LayerResponse",
    "StageProbe",
    "Subject",
    "chain",
    "check_blocks",
    "construct",
    "first_to_last",
    "forward_signal",
    "gradients",
    "gradients_by_moment",
    "gradients_record",
    "identity_loss",
    "inputs",
    "plain",
    "probes",
    "probes_record",
    "responses",
    "responses_record",
    "write_analysis",
]
