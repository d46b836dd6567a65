"""A whole analysis of one run as plain JSON values, as `reslearn analyze` prints it and `analysis/NAME.json` keeps it."""

from dataclasses import asdict
from typing import Any

from reslearn.analysis import landscape
from reslearn.analysis.gradients import Gradients, gradients
from reslearn.analysis.lesions import lesions
from reslearn.analysis.paths import paths
from reslearn.analysis.probes import probes
from reslearn.analysis.responses import responses
from reslearn.analysis.subject import Subject, check_same_recipe


def responses_record(subject: Subject, *, num_images: int = 10_000) -> dict[str, Any]:
    """Fig. 7's numbers for the trained network, on training images evenly spaced; over all their positions 10,000 are plenty."""
    images = subject.train.evenly_spaced(num_images)
    layers = responses(subject.network(), subject.batches(images))
    return {
        "model": subject.recipe["model"]["name"],
        "images": len(images),
        "reads": "evaluation mode: the standard deviation follows each batch norm's learned gamma (gamma_rms) and the spread of its beta",
        "layers": [asdict(layer) for layer in layers],
    }


def gradients_record(subject: Subject, *, num_images: int = 512) -> dict[str, Any]:
    """Norms by layer at every moment that was kept, on one fixed batch of clean training images."""
    return {
        "model": subject.recipe["model"]["name"],
        "images": min(num_images, len(subject.train)),
        "reads": "training mode; ratio of the first to the last third of layers: below 1 vanishing, above 1 exploding",
        "moments": [
            asdict(moment) for moment in gradients_by_moment(subject, num_images=num_images)
        ],
    }


def gradients_by_moment(subject: Subject, *, num_images: int = 512) -> list[Gradients]:
    """`gradients` at step 0, at each snapshot and at the end."""
    x, y = subject.training_batch(num_images)
    return [
        gradients(subject.network(moment), x, y, step=subject.step_of(moment))
        for moment in subject.moments()
    ]


def probes_record(subject: Subject, *, dimension: int = 16, seed: int = 0) -> dict[str, Any]:
    """Probes of the trained net and of the net as it was before its first step, fitted on training images, read on test images."""
    nets = {"trained": subject.network(), "untrained": subject.network(0)}
    found = {
        name: probes(
            net,
            subject.batches(subject.train),
            subject.batches(subject.test),
            dimension=dimension,
            seed=seed,
        )
        for name, net in nets.items()
    }
    return {
        "model": subject.recipe["model"]["name"],
        "train_images": len(subject.train),
        "test_images": len(subject.test),
        "reads": "logistic regression on each stage's output at equal dimension; errors on test images, which nothing was chosen by",
        **{name: [asdict(probe) for probe in stages] for name, stages in found.items()},
    }


def lesion_record(
    subject: Subject, *, num_images: int = 1000, draws: int = 5, seed: int = 0
) -> dict[str, Any]:
    """Blocks dropped and swapped, measured on test images, evenly spaced over all where these are more than `num_images`."""
    images = subject.test.evenly_spaced(num_images)
    return {
        "model": subject.recipe["model"]["name"],
        "test_images": len(images),
        "seed": seed,
        "reads": "nothing trained again, batch norm statistics as trained; errors on test images, which nothing was chosen by",
        **asdict(lesions(subject.network(), subject.batches(images), draws=draws, seed=seed)),
    }


def paths_record(
    subject: Subject, *, num_images: int = 128, draws: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Path lengths of the trained network, on one fixed batch of clean training images."""
    x, y = subject.training_batch(num_images)
    return {
        "model": subject.recipe["model"]["name"],
        "images": len(y),
        "seed": seed,
        "reads": "training mode; L2 norms of the gradient of the batch's mean loss at the first block's input; lengths in blocks; "
        "contribution: number of paths times mean norm, in per cent of all",
        **asdict(paths(subject.network(), x, y, draws=draws, seed=seed)),
    }


def landscape_record(
    subject: Subject,
    other: Subject | None = None,
    *,
    num_images: int = 500,
    num_points: int = 11,
    num_grid: int = 7,
    seed: int = 0,
) -> dict[str, Any]:
    """The line from the start of the run to its end, or from its end to that of `other`, and across its end; on training images.

    `num_grid` points a side of the grid; 0 leaves it out. ValueError where `other` is no run of the same recipe but for its seed.
    """
    if other is not None:
        check_same_recipe(subject, other)
    batches = list(subject.batches(subject.train.evenly_spaced(num_images)))
    trained = subject.network()
    start, end = (subject.network(0), trained) if other is None else (trained, other.network())
    first, second = (
        landscape.filter_normalized(trained, seed=seed, number=number) for number in range(2)
    )
    return {
        "model": subject.recipe["model"]["name"],
        "images": sum(len(labels) for _, labels in batches),
        "seed": seed,
        "reads": "training images; batch norm statistics computed anew on them at each point; distance 1: as far as each filter is long",
        "start": "step 0" if other is None else str(subject.folder.path),
        "end": f"step {subject.step_of(None)}" if other is None else str(other.folder.path),
        "line": asdict(landscape.along(start, end, batches, num_points=num_points)),
        "across": [
            asdict(point)
            for point in landscape.across(trained, first, batches, num_points=num_points)
        ],
        "grid": asdict(landscape.grid(trained, first, second, batches, num_points=num_grid))
        if num_grid
        else None,
    }
