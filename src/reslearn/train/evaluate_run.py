"""Evaluate finished networks again, alone or as an ensemble.

By default each network is evaluated with the precision it was trained with.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from reslearn import data
from reslearn.evaluate import (
    EvaluationTask,
    Metrics,
    Predictions,
    Protocol,
    evaluate,
    metrics_of_scores,
    predict,
    scores,
    views,
)
from reslearn.interop import Bundle, read_bundle
from reslearn.interop.as_bundle import NO_OPTIONS, InputOptions, as_bundle, with_classes_of
from reslearn.interop.pretrained import has_name, hub_hint, weights_file_in
from reslearn.progress import track
from reslearn.runs import RunError, RunFolder, check_weights
from reslearn.train import numerics
from reslearn.train.numerics import Numerics
from reslearn.train.setup import THIS_MACHINE, Machine

_SETS = ("train", "validation", "test")
# As many pixels as 64 crops of 224 px: batches of smaller images hold more of them.
_PIXELS_PER_BATCH = 64 * 224 * 224
_MAX_BATCH = 500


def evaluate_bundle(
    source: str | Path | Sequence[str | Path],
    data_name: str | None = None,
    machine: Machine = THIS_MACHINE,
    *,
    images: str = "test",
    protocol: Protocol = "single",
    precision: str | None = None,
    options: InputOptions | Sequence[InputOptions] = NO_OPTIONS,
) -> Metrics:
    """Evaluate networks of run folders, bundles or weight files on clean images.

    Several networks are evaluated by the mean of their scores. A single network under the protocol
    "single" is evaluated as at the end of its run. A run whose data have changed is refused,
    because former training images may now be among the held-out images; `data_name` allows it.

    Args:
        source: A run folder, a bundle, weights of another project (a file, a folder, a name or a
            URL), or several of them.
        data_name: A dataset or a folder of images. None: the data of the runs.
        machine: The device, and the folder of the datasets.
        images: "train", "validation" or "test".
        protocol: The views of each image that are evaluated (Sec. 4.1).
        precision: "fp32" or "bf16". None: the precision of the run; fp32 for a bundle.
        options: Preprocessing and classes, for weights of other projects. One value is for all
            networks.

    Raises:
        RunError: If a run does not exist, is incomplete, or its data have changed.
        BundleError, WeightsError: If a bundle is damaged, or weights cannot be used.
        DataError: If the data are missing.
        ValueError: If an option has a wrong value, the data have other classes, or the loss is NaN
            or infinite.
    """
    check_options(images, precision)
    sources = [source] if isinstance(source, str | Path) else source
    all_options = [options] * len(sources) if isinstance(options, InputOptions) else options
    members = [_open(*pair) for pair in zip(sources, all_options, strict=True)]
    if not members:
        raise ValueError("there is nothing to evaluate: name a run folder or a bundle")
    device = numerics.choose_device(machine.device)
    numerics.choose_kernels(device)
    sets = []
    name = data_name or _data_of_runs(members)
    for number, member in enumerate(members):
        dataset = _load(member, name, protocol, machine.data_dir, is_named=data_name is not None)
        members[number] = _with_classes_of(member, dataset, name)
        sets.append(_select(dataset, images, member.run if data_name is None else None))
    if protocol == "single" and len(members) == 1:
        metrics = _evaluate_single(members[0], sets[0], _numerics(members[0], precision, device))
    else:
        member_scores = [
            _scores(member, image_set, protocol, _numerics(member, precision, device))
            for member, image_set in zip(members, sets, strict=True)
        ]
        metrics = metrics_of_scores(torch.stack(member_scores).mean(0), sets[0].labels)
    _check_finite(metrics, [str(member.path) for member in members])
    return metrics


def open_task(
    source: str | Path,
    data_name: str | None = None,
    machine: Machine = THIS_MACHINE,
    *,
    images: str = "test",
    precision: str | None = None,
    options: InputOptions = NO_OPTIONS,
) -> tuple[EvaluationTask, RunFolder | None]:
    """Open one network with its images for a detailed evaluation.

    Args:
        source: A run folder or a bundle. The other arguments are as in `evaluate_bundle`.

    Returns:
        The task, and the run if `source` is one.

    Raises:
        RunError, BundleError, DataError, ValueError: As `evaluate_bundle`.
    """
    check_options(images, precision)
    member = _open(source, options)
    device = numerics.choose_device(machine.device)
    numerics.choose_kernels(device)
    name = data_name or _data_of_runs([member])
    dataset = _load(member, name, "single", machine.data_dir, is_named=data_name is not None)
    member = _with_classes_of(member, dataset, name)
    run = member.run if data_name is None else None
    image_set = _select(dataset, images, run)
    bundle, chosen = member.bundle, _numerics(member, precision, device)
    task = EvaluationTask(
        name=str(source),
        network=bundle.network.to(device),
        classes=dataset.classes,
        preprocess=bundle.preprocess,
        temperature=None if bundle.temperature == 1 else bundle.temperature,
        images=image_set,
        files=_files_of(image_set, dataset, name, images, machine.data_dir, run),
        device=device,
        autocast=chosen.autocast,
        batch_size=_batch_size(bundle.preprocess),
    )
    return task, member.run


def predict_task(task: EvaluationTask) -> tuple[Predictions, Metrics]:
    """Compute the outputs for all images of a task, and the metrics of `evaluate_bundle`.

    Raises:
        ValueError: If the loss is NaN or infinite.
    """
    batches = track(task.batches(), task.name, len(task.images))
    predictions = predict(task.network, batches, autocast=task.autocast)
    # In the same batches as `evaluate_bundle`, so that the sums are equal in every bit.
    starts = range(0, len(predictions), task.batch_size)
    parts = [slice(start, start + task.batch_size) for start in starts]
    batches = ((predictions.logits[part], predictions.labels[part]) for part in parts)
    metrics = evaluate(nn.Identity(), batches)
    _check_finite(metrics, [task.name])
    return predictions, metrics


def _files_of(
    image_set: data.ImageSet,
    dataset: data.ImageData,
    name: str,
    images: str,
    data_dir: Path | None,
    run: RunFolder | None,
) -> data.Files | None:
    """Return the picture files of images that a run has in memory; None if there are none."""
    if isinstance(image_set, data.Files):
        return image_set
    if name in data.names():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first loading has warned, and knows more bad images
        on_disk = data.load(name, data_dir=data_dir, size_px=image_set.size_px, stream=True)
    files = _select(on_disk, images, run)
    if not isinstance(files, data.Files):
        return None
    for image in dataset.skip_log.images():
        files.skip_log.add(image)
    files = files.readable()
    return files if torch.equal(files.labels, image_set.labels) else None


def check_options(images: str, precision: str | None) -> None:
    """Raise ValueError if an option of an evaluation has a wrong value."""
    if images not in _SETS:
        raise ValueError(f"--images {images} is unknown: use train, validation or test")
    if precision not in (None, "fp32", "bf16"):
        raise ValueError(f"--precision {precision} is unknown: use fp32 or bf16")


def _check_finite(metrics: Metrics, names: Sequence[str]) -> None:
    if not math.isfinite(metrics.loss):
        raise ValueError(
            f"the loss of {' and '.join(names)} is {metrics.loss}: "
            "outputs that are not finite have no error rate"
        )


def is_source(text: str) -> bool:
    """Return whether an argument names a network: a run, weights or a published name, not data."""
    if has_name(text):
        return True
    path = Path(text)
    is_table = path.suffix.lower() in (".csv", ".tsv")
    is_file = path.suffix == ".safetensors" or (path.is_file() and not is_table)
    is_folder = RunFolder(path).exists() or weights_file_in(path) is not None
    return is_file or is_folder


@dataclass(frozen=True, kw_only=True)
class _EnsembleMember:
    """A bundle, and its run if it lies in a run folder."""

    path: str | Path
    bundle: Bundle
    run: RunFolder | None

    @property
    def data_name(self) -> str | None:
        if self.run is None:
            return None
        return data.locate(str(self.run.recipe["data"]["name"]), run=self.run.path)

    @property
    def precision(self) -> str:
        return "fp32" if self.run is None else str(self.run.environment["numerics"]["precision"])


def _open(source: str | Path, options: InputOptions) -> _EnsembleMember:
    path, is_name = Path(source), has_name(str(source))
    has_run = not is_name and (RunFolder(path).exists() or weights_file_in(path) is None)
    if has_run and path.is_dir():
        run = RunFolder.open(path)
        _ = run.result  # raises RunError if the run is not complete, or was changed
        if not run.bundle_path.exists():
            raise RunError(f"{path} has no model.safetensors: it was committed without weights")
        check_weights(run, run.bundle_path)
        options.refuse_for(str(path))
        bundle = read_bundle(run.bundle_path, recipe_hash=run.recipe_hash)
        return _EnsembleMember(path=path, bundle=bundle, run=run)
    if not (is_name or path.exists()):
        raise RunError(
            f"{source}: there is no such run folder or bundle; "
            f"pass a run folder, its model.safetensors, or a weight file{hub_hint(source)}"
        )
    return _EnsembleMember(path=source, bundle=as_bundle(str(source), options), run=None)


def _numerics(member: _EnsembleMember, precision: str | None, device: str) -> Numerics:
    return Numerics(
        device=device,
        precision=precision or member.precision,
        compiled=False,
        threads=torch.get_num_threads(),
        instruction_set="",
    )


def _data_of_runs(members: Sequence[_EnsembleMember]) -> str:
    names = sorted({member.data_name for member in members if member.data_name is not None})
    if not names:
        path = members[0].path
        raise ValueError(
            f"{path} is a bundle: name the data too, as in: reslearn evaluate {path} cifar10"
        )
    if len(names) > 1:
        raise ValueError(
            f"the runs were trained on {' and '.join(names)}: "
            "name the data to evaluate all of them on"
        )
    return names[0]


def _load(
    member: _EnsembleMember,
    name: str,
    protocol: Protocol,
    data_dir: Path | None,
    *,
    is_named: bool,
) -> data.ImageData:
    """Load the data for one network, and check that they are the data of its run.

    Folders of images stay on disk. Only if the run had them in memory, and the protocol is
    "single", are they loaded into memory.
    """
    run = None if is_named else member.run
    size_px = member.bundle.preprocess.size_px
    in_memory = run is not None and not data.is_streamed(run.environment)
    dataset = data.load(name, data_dir=data_dir, size_px=size_px, stream=not in_memory)
    if run is not None:
        try:
            # The fingerprint of a folder in memory differs from its fingerprint on disk.
            run.check_images(dataset.fingerprint)
        except RunError as error:
            raise RunError(
                f"{error}, or name the data: reslearn evaluate {member.path} {name}"
            ) from None
    if in_memory and protocol != "single":
        dataset = data.load(name, data_dir=data_dir, size_px=size_px, stream=True)
    return dataset


def _with_classes_of(
    member: _EnsembleMember, dataset: data.ImageData, name: str
) -> _EnsembleMember:
    """Return a network whose outputs are the classes of the data, in their order.

    Raises:
        ValueError: If the data have other classes.
    """
    bundle = with_classes_of(member.bundle, dataset.classes, data_name=name, source=member.path)
    return replace(member, bundle=bundle)


def _select(dataset: data.ImageData, images: str, run: RunFolder | None) -> data.ImageSet:
    """Return one set of images. A run may have set aside training images for validation."""
    if images == "validation" and run is not None:
        dataset = data.split(dataset, run.recipe["data"]["validation_images"])
    image_set: data.ImageSet | None = getattr(dataset, images)
    if image_set is None:
        raise ValueError(
            f"--images {images}: {dataset.name} has no validation images of its own: "
            "use train or test"
        )
    return image_set


def _evaluate_single(member: _EnsembleMember, images: data.ImageSet, chosen: Numerics) -> Metrics:
    preprocess, network = member.bundle.preprocess, member.bundle.network.to(chosen.device)
    batches = data.eval_batches(
        images, preprocess, batch_size=_batch_size(preprocess), device=chosen.device
    )
    batches_with_bar = track(batches, str(member.path), len(images))
    return evaluate(network, batches_with_bar, autocast=chosen.autocast())


def _scores(
    member: _EnsembleMember, images: data.ImageSet, protocol: Protocol, chosen: Numerics
) -> Tensor:
    """Compute the scores [N, K] of one network."""
    preprocess, network = member.bundle.preprocess, member.bundle.network.to(chosen.device)
    batches = views(
        protocol, images, preprocess, batch_size=_batch_size(preprocess), device=chosen.device
    )
    batches_with_bar = track(batches, f"{member.path}: {protocol}", len(images))
    return scores(network, batches_with_bar, num_images=len(images), autocast=chosen.autocast)


def _batch_size(preprocess: data.Preprocess) -> int:
    return max(1, min(_MAX_BATCH, _PIXELS_PER_BATCH // preprocess.size_px**2))
