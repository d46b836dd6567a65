"""Finished networks measured again, alone or as an ensemble, under the numerics they were trained with or others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from reslearn import data
from reslearn.evaluate import Metrics, Protocol, evaluate, metrics_of_scores, scores, views
from reslearn.interop import Bundle, read_bundle
from reslearn.progress import progress_bar
from reslearn.runs import RunError, RunFolder
from reslearn.train import numerics

Pair = TypeVar("Pair", bound=tuple[Tensor, Any])

_SETS = ("train", "validation", "test")
# Crops of 224 px a batch; smaller ones are more.
_PIXELS_A_BATCH = 64 * 224 * 224


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A bundle, and the run around it."""

    path: Path
    bundle: Bundle
    run: RunFolder | None

    @property
    def data_name(self) -> str | None:
        """The data that the run was trained on."""
        return None if self.run is None else str(self.run.recipe["data"]["name"])

    @property
    def precision(self) -> str:
        """That of the run."""
        return "fp32" if self.run is None else str(self.run.environment["numerics"]["precision"])


def evaluate_bundle(
    source: Path | Sequence[Path],
    data_name: str | None = None,
    *,
    images: str = "test",
    protocol: Protocol = "single",
    precision: str | None = None,
    device: str | None = None,
    data_dir: Path | None = None,
) -> Metrics:
    """Loss and error of the network of a run folder or bundle on clean images of its own or other data; of several, of their mean scores.

    `protocol` says which views of an image are taken (Sec. 4.1). Alone and by its single view a network is measured as in its run.
    Of its own data that are others now it is not measured, since former training images may be among those held out: whoever means them
    names them. Raises RunError, BundleError, DataError; ValueError for other words than the options allow, and for data of other classes.
    """
    if images not in _SETS:
        raise ValueError(f"--images {images}: train, validation or test is needed")
    if precision not in (None, "fp32", "bf16"):
        raise ValueError(f"--precision {precision}: fp32 or bf16 is needed")
    members = [_open(path) for path in ([source] if isinstance(source, Path) else source)]
    if not members:
        raise ValueError("a run folder or bundle is needed")
    name = data_name or _name_of_data(members)
    chosen = [_numerics(member, precision, device) for member in members]
    sets = [
        _images(member, name, images, protocol, data_dir, named=data_name is not None)
        for member in members
    ]
    if protocol == "single" and len(members) == 1:
        preprocess = members[0].bundle.preprocess
        batches = data.eval_batches(
            sets[0], preprocess, batch_size=_batch_size(preprocess), device=chosen[0].device
        )
        shown = _shown(batches, f"{members[0].path}", len(sets[0]))
        return evaluate(
            members[0].bundle.network.to(chosen[0].device), shown, autocast=chosen[0].autocast()
        )
    found = [
        _scores(member, image_set, protocol, used)
        for member, image_set, used in zip(members, sets, chosen, strict=True)
    ]
    return metrics_of_scores(torch.stack(found).mean(0), sets[0].labels)


def _scores(
    member: _Member, images: data.ImageSet, protocol: Protocol, used: numerics.Numerics
) -> Tensor:
    """[N, K] of one network."""
    preprocess = member.bundle.preprocess
    batches = views(
        protocol, images, preprocess, batch_size=_batch_size(preprocess), device=used.device
    )
    shown = _shown(batches, f"{member.path}: {protocol}", len(images))
    return scores(
        member.bundle.network.to(used.device), shown, num_images=len(images), autocast=used.autocast
    )


def _batch_size(preprocess: data.Preprocess) -> int:
    return max(1, min(500, _PIXELS_A_BATCH // preprocess.size_px**2))


def _name_of_data(members: Sequence[_Member]) -> str:
    names = sorted({member.data_name for member in members if member.data_name is not None})
    if not names:
        raise ValueError(
            f"{members[0].path} is a bundle: name the data too, as in: reslearn evaluate {members[0].path} cifar10"
        )
    if len(names) > 1:
        raise ValueError(
            f"the runs were trained on {' and '.join(names)}: name the data to evaluate all of them on"
        )
    return names[0]


def _numerics(member: _Member, precision: str | None, device: str | None) -> numerics.Numerics:
    place = numerics.choose_device(device)
    numerics.choose_kernels(place)
    return numerics.Numerics(
        device=place,
        precision=precision or member.precision,
        compiled=False,
        threads=torch.get_num_threads(),
        instruction_set="",
    )


def is_source(text: str) -> bool:
    """Whether an argument names a run folder or a bundle, and not data."""
    path = Path(text)
    return path.suffix == ".safetensors" or RunFolder(path).exists()


def _open(path: Path) -> _Member:
    if path.is_dir():
        run = RunFolder.open(path)
        if not run.bundle_path.exists():
            why = run.divergence or (
                "it was committed without weights" if run.is_complete else "it is not complete"
            )
            raise RunError(f"{path} has no model.safetensors: {why}")
        return _Member(
            path=path, bundle=read_bundle(run.bundle_path, recipe_hash=run.recipe_hash), run=run
        )
    if not path.exists():
        raise RunError(f"{path}: there is no such run folder or bundle")
    return _Member(path=path, bundle=read_bundle(path), run=None)


def _images(
    member: _Member,
    name: str,
    images: str,
    protocol: Protocol,
    data_dir: Path | None,
    *,
    named: bool,
) -> data.ImageSet:
    """The set to evaluate on; a folder of images stays on disk, unless it is in memory that the run had it and the protocol takes it."""
    bundle, run = member.bundle, None if named else member.run

    def load(*, stream: bool) -> data.ImageData:
        return data.load(name, data_dir=data_dir, size_px=bundle.preprocess.size_px, stream=stream)

    in_memory = run is not None and run.recipe["data"].get("jitter") is None
    dataset = load(stream=not in_memory)
    if run is not None:
        try:
            run.check_images(
                dataset.fingerprint
            )  # that of a folder in memory is another than of one on disk
        except RunError as error:
            raise RunError(
                f"{error}, or name the data: reslearn evaluate {member.path} {name}"
            ) from None
    if in_memory and protocol != "single":
        dataset = load(stream=True)
    if dataset.classes != bundle.classes:
        raise ValueError(
            f"{name} has other classes than {member.path}: {', '.join(dataset.classes[:3])}... and {', '.join(bundle.classes[:3])}..."
        )
    found: data.ImageSet | None = getattr(dataset, images)
    if found is None:
        raise ValueError(f"--images {images}: {name} brings no validation images of its own")
    return found


def _shown(batches: Iterable[Pair], about: str, num_images: int) -> Iterator[Pair]:
    """The batches, with a bar where there is a terminal."""
    with progress_bar(about, num_images, after_seconds=2.0) as advance:
        for batch in batches:
            yield batch
            advance(len(batch[0]))  # of x or of indices there is one an image
