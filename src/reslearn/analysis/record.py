"""Analyses of one run as plain JSON values, the content of analysis/NAME.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from reslearn.analysis.gradients import Gradients, gradients
from reslearn.analysis.landscape import (
    loss_along_direction,
    loss_along_line,
    loss_grid,
    random_direction,
)
from reslearn.analysis.lesions import lesions
from reslearn.analysis.paths import paths
from reslearn.analysis.probes import probes
from reslearn.analysis.responses import responses
from reslearn.analysis.subject import Subject, check_same_recipe


def responses_record(subject: Subject, *, num_images: int = 10_000) -> dict[str, Any]:
    """Measure the responses of Fig. 7 for the trained network, on evenly spaced training images.

    10,000 images are plenty, because each has many positions.
    """
    images = subject.train.evenly_spaced(num_images)
    layers = responses(subject.network(), subject.batches(images))
    return {
        "model": subject.recipe["model"]["name"],
        "images": len(images),
        "reads": "evaluation mode: the standard deviation follows each batch norm's learned gamma "
        "(gamma_rms) and the spread of its beta",
        "layers": [asdict(layer) for layer in layers],
    }


def gradients_record(subject: Subject, *, num_images: int = 512) -> dict[str, Any]:
    """Measure gradients at every saved step, on one fixed batch of clean training images."""
    return {
        "model": subject.recipe["model"]["name"],
        "images": min(num_images, len(subject.train)),
        "reads": "training mode; ratio of the first to the last third of layers: "
        "below 1 vanishing, above 1 exploding",
        "moments": [
            asdict(moment) for moment in gradients_by_moment(subject, num_images=num_images)
        ],
    }


def gradients_by_moment(subject: Subject, *, num_images: int = 512) -> list[Gradients]:
    """Return `gradients` at step 0, at each snapshot and at the end."""
    x, y = subject.training_batch(num_images)
    return [
        gradients(subject.network(moment), x, y, step=subject.step_of(moment))
        for moment in subject.moments()
    ]


def probes_record(subject: Subject, *, dimension: int = 16, seed: int = 0) -> dict[str, Any]:
    """Probe the trained network, and the network before its first step.

    Probes are fitted to training images, and their error is measured on test images.
    """
    networks = {"trained": subject.network(), "untrained": subject.network(0)}
    stages_by_network = {
        name: probes(
            network,
            subject.batches(subject.train),
            subject.batches(subject.test),
            dimension=dimension,
            seed=seed,
        )
        for name, network in networks.items()
    }
    record: dict[str, Any] = {
        "model": subject.recipe["model"]["name"],
        "train_images": len(subject.train),
        "test_images": len(subject.test),
        "reads": "logistic regression on each stage's output at equal dimension; errors on test "
        "images, which were not used for any choice",
    }
    for name, stages in stages_by_network.items():
        record[name] = [asdict(probe) for probe in stages]
    return record


def lesion_record(
    subject: Subject, *, num_images: int = 1000, draws: int = 5, seed: int = 0
) -> dict[str, Any]:
    """Measure lesions on at most `num_images` test images, evenly spaced."""
    images = subject.test.evenly_spaced(num_images)
    return {
        "model": subject.recipe["model"]["name"],
        "test_images": len(images),
        "seed": seed,
        "reads": "nothing trained again, batch norm statistics as trained; errors on test images, "
        "which were not used for any choice",
        **asdict(lesions(subject.network(), subject.batches(images), draws=draws, seed=seed)),
    }


def paths_record(
    subject: Subject, *, num_images: int = 128, draws: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Measure path lengths of the trained network, on one fixed batch of clean training images."""
    x, y = subject.training_batch(num_images)
    return {
        "model": subject.recipe["model"]["name"],
        "images": len(y),
        "seed": seed,
        "reads": "training mode; L2 norms of the gradient of the batch's mean loss at the first "
        "block's input; lengths in blocks; contribution: number of paths times mean norm, in per "
        "cent of all",
        **asdict(paths(subject.network(), x, y, draws=draws, seed=seed)),
    }


def landscape_record(
    subject: Subject,
    second_run: Subject | None = None,
    *,
    num_images: int = 500,
    num_points: int = 11,
    num_grid: int = 7,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the loss along a line and across the trained network, on training images.

    The line runs from the start of the run to its end, or from its end to the end of `second_run`.

    Args:
        subject: The run.
        second_run: A run of the same recipe with another seed.
        num_images: Number of training images, evenly spaced.
        num_points: Number of points along the line and across the solution.
        num_grid: Number of points per side of the grid; 0 for no grid.
        seed: Seed of the random directions.

    Raises:
        RunError: If `second_run` has another recipe.
    """
    if second_run is not None:
        check_same_recipe(subject, second_run)
    batches = list(subject.batches(subject.train.evenly_spaced(num_images)))
    trained = subject.network()
    if second_run is None:
        start, end = subject.network(0), trained
        names = "step 0", f"step {subject.step_of(None)}"
    else:
        start, end = trained, second_run.network()
        names = str(subject.folder.path), str(second_run.folder.path)
    first = random_direction(trained, seed=seed, number=0)
    second = random_direction(trained, seed=seed, number=1)
    line = loss_along_line(start, end, batches, num_points=num_points)
    across = loss_along_direction(trained, first, batches, num_points=num_points)
    grid = None
    if num_grid:
        grid = asdict(loss_grid(trained, first, second, batches, num_points=num_grid))
    return {
        "model": subject.recipe["model"]["name"],
        "images": sum(len(labels) for _, labels in batches),
        "seed": seed,
        "reads": "training images; batch norm statistics computed anew on them at each point; "
        "distance 1: as far as each filter is long",
        "start": names[0],
        "end": names[1],
        "line": asdict(line),
        "across": [asdict(point) for point in across],
        "grid": grid,
    }
