"""The cause of a verdict in plain words, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reslearn.diagnose.findings import at
from reslearn.diagnose.initial_weights import suitable_initializer
from reslearn.diagnose.regularization import regularization_of
from reslearn.diagnose.scores import is_worse
from reslearn.diagnose.verdict_rules import CURES

if TYPE_CHECKING:
    from reslearn.diagnose.diagnosis import Diagnosis

_SIGNALS = {
    "vanishing": "The signal vanishes on its way through the layers, because the initial weights "
    "are too small for this depth.",
    "exploding": "The signal explodes on its way through the layers, because the initial weights "
    "are too large for this depth.",
    "equal units": "Units start equal and stay equal, so they count as one.",
    "initialization": "The initial weights keep the network from learning.",
}


def advice(diagnosis: Diagnosis) -> str:
    """Return what the cause is and what to change, in one or two sentences."""
    verdict = diagnosis.verdict
    writers = {
        "degradation": _degradation,
        "vanishing or exploding signal": _signal,
        "dead units": _dead_units,
        "bad learning rate": _learning_rate,
        "data fault": _data_fault,
        "output layer": _output_layer,
        "too much regularization": _regularization,
        "capacity too small": _capacity,
        "overfitting": _overfitting,
        "healthy": _healthy,
    }
    writer = writers.get(verdict.name)
    return writer(diagnosis) if writer is not None else ""


def rate_line(diagnosis: Diagnosis) -> str:
    """Say which learning rate was best; empty if none was tried."""
    choice = diagnosis.rates.get("deep")
    problem = diagnosis.problem
    if choice is None or not diagnosis.judged:
        return ""
    scores = diagnosis.scores
    if choice.scores and not scores.learns("deep"):
        line = "Learning rate: the network learns at none of those tried."
        cure = CURES.get(diagnosis.verdict.name, "")
        if scores.learns(cure) and cure in diagnosis.rates:
            line += f" After the change, {diagnosis.rates[cure].lr:.3g} is the best of them."
        return line
    source = "given" if problem.lr_is_given else f"usual for {problem.optimizer_name}"
    if choice.lr == problem.lr:
        extent = "the best of those tried" if choice.scores else "the only one tried"
        return f"Learning rate: {problem.lr:.3g} ({source}) is {extent}."
    return (
        f"Learning rate: {choice.lr:.3g} is the best of those tried ({source}: {problem.lr:.3g})."
    )


def _degradation(diagnosis: Diagnosis) -> str:
    variants, scores = diagnosis.variants, diagnosis.scores
    extent = ""
    if variants.num_layers_shallow is not None and scores.train.get("shallow"):
        extent = f": with {variants.num_layers_shallow} of its {variants.num_layers} layers, it "
        extent += "learns its training data better"
    cure = "Add shortcuts around its blocks (--patch writes the change)."
    if is_worse(scores, "deep", "shortcuts") != "yes":
        cure = "Use fewer layers, or add shortcuts and norms."
    return f"Depth hurts this network{extent}. {cure}"


def _signal(diagnosis: Diagnosis) -> str:
    cause = _SIGNALS[diagnosis.verdict.subcause or "initialization"]
    if diagnosis.verdict.subcause == "equal units":
        return f"{cause} Draw the initial weights at random{_place(diagnosis)}."
    return f"{cause} {_initialize(diagnosis)}{_place(diagnosis)}."


def _dead_units(diagnosis: Diagnosis) -> str:
    return (
        "Most units are zero for every input, so no gradient passes them. "
        f"{_initialize(diagnosis)}{_place(diagnosis)}."
    )


def _learning_rate(diagnosis: Diagnosis) -> str:
    problem, best = diagnosis.problem, diagnosis.rates["deep"].lr
    subcause = diagnosis.verdict.subcause
    if subcause == "warm-up missing":
        return (
            f"The learning rate needs a warm-up: let it rise to {problem.lr:.3g} during the first "
            "fifth of the steps, for example by torch.optim.lr_scheduler.LinearLR."
        )
    extent = subcause or "not right"
    clipping = ""
    if diagnosis.scores.learns("clipped") and not diagnosis.scores.learns("deep"):
        clipping = " Clip the gradients by nn.utils.clip_grad_norm_ (norm 1)."
    return f"The learning rate {problem.lr:.3g} is {extent}. Use {best:.3g}.{clipping}"


def _data_fault(diagnosis: Diagnosis) -> str:
    if diagnosis.verdict.subcause == "scale of the inputs":
        return (
            "The inputs are not scaled. Standardize them in the data function: subtract the mean, "
            "divide by the deviation."
        )
    if diagnosis.scores.fault:
        return ""
    return (
        "Nothing that is learned on the training examples carries over to others. Check that each "
        "target belongs to its input."
    )


def _output_layer(diagnosis: Diagnosis) -> str:
    return (
        "The activation behind the last weights holds the network back. Remove it, or use a loss "
        f"that belongs to it{_place(diagnosis)}."
    )


def _regularization(diagnosis: Diagnosis) -> str:
    decay, share = regularization_of(diagnosis.problem)
    changes = []
    if decay:
        changes.append(f"a weight decay far below {decay:g} (1e-4 is usual for SGD)")
    if share:
        changes.append(f"dropout far below {share:g} (0.1 is usual)")
    return (
        "Regularization keeps the network from learning its training data. Use "
        f"{' and '.join(changes)}."
    )


def _capacity(diagnosis: Diagnosis) -> str:
    return "The network is too small for this task. Make its layers wider."


def _overfitting(diagnosis: Diagnosis) -> str:
    return (
        "The network learns its training examples by heart. Stop earlier, use more examples, or "
        "add weight decay, dropout or augmentation."
    )


def _healthy(diagnosis: Diagnosis) -> str:
    return "Nothing is wrong with this network: it learns its training data."


def _initialize(diagnosis: Diagnosis) -> str:
    text = suitable_initializer(diagnosis.problem).text
    return f"Draw the weights by {text} and set the biases to 0"


def _place(diagnosis: Diagnosis) -> str:
    """Return the line of the user's code that a finding of the same cause names."""
    for finding in diagnosis.screening.findings:
        if diagnosis.verdict.name in finding.causes and finding.location:
            return at(finding.location)
    return ""
