"""A whole analysis of one run as plain JSON values, as `reslearn analyse` prints it and `analysis/NAME.json` keeps it."""

from dataclasses import asdict
from typing import Any

from reslearn.analysis.gradients import Gradients, gradients
from reslearn.analysis.probes import probes
from reslearn.analysis.responses import responses
from reslearn.analysis.subject import Subject


def responses_record(subject: Subject) -> dict[str, Any]:
    """Fig. 7's numbers for the trained network, on all training images."""
    layers = responses(subject.network(), subject.batches(subject.train))
    return {
        "model": subject.recipe["model"]["name"],
        "images": len(subject.train),
        "reads": "evaluation mode: the standard deviation follows the learned gamma of each batch norm (gamma_rms)",
        "layers": [asdict(layer) for layer in layers],
    }


def gradients_record(subject: Subject, *, num_images: int = 512) -> dict[str, Any]:
    """Norms by layer at every moment that was kept, on one fixed batch of clean training images."""
    return {
        "model": subject.recipe["model"]["name"],
        "images": min(num_images, len(subject.train)),
        "reads": "training mode; ratio of the first to the last third of layers: below 1 vanishing, above 1 exploding",
        "moments": [asdict(moment) for moment in gradients_by_moment(subject, num_images=num_images)],
    }


def gradients_by_moment(subject: Subject, *, num_images: int = 512) -> list[Gradients]:
    """`gradients` at step 0, at each snapshot and at the end."""
    x, y = subject.training_batch(num_images)
    return [gradients(subject.network(moment), x, y, step=subject.step_of(moment)) for moment in subject.moments()]


def probes_record(subject: Subject, *, dimension: int = 16) -> dict[str, Any]:
    """Probes of the trained net and of the net as it was before its first step, fitted on training images, read on test images."""
    nets = {"trained": subject.network(), "untrained": subject.network(0)}
    found = {
        name: probes(net, subject.batches(subject.train), subject.batches(subject.test), dimension=dimension) for name, net in nets.items()
    }
    return {
        "model": subject.recipe["model"]["name"],
        "train_images": len(subject.train),
        "test_images": len(subject.test),
        "reads": "logistic regression on each stage's output at equal dimension; errors on test images, which nothing was chosen by",
        **{name: [asdict(probe) for probe in stages] for name, stages in found.items()},
    }
