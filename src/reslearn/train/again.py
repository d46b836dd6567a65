"""A finished network measured again, under the numerics it was trained with or others."""

from pathlib import Path

import torch

from reslearn import data
from reslearn.evaluate import Metrics, evaluate
from reslearn.interop import read_bundle
from reslearn.runs import RunError, RunFolder
from reslearn.train import numerics


def evaluate_bundle(
    source: Path,
    data_name: str | None = None,
    *,
    images: str = "test",
    precision: str | None = None,
    device: str | None = None,
    data_dir: Path | None = None,
) -> Metrics:
    """Loss and error of the network of a run folder or bundle on the clean training or test images of its own or other data.

    Raises RunError, BundleError, DataError; ValueError for other words than the options allow, and for data of other classes.
    """
    if images not in ("train", "test"):
        raise ValueError(f"--images {images}: train or test is needed")
    if precision not in (None, "fp32", "bf16"):
        raise ValueError(f"--precision {precision}: fp32 or bf16 is needed")
    if source.is_dir():
        folder = RunFolder.open(source)
        if not folder.bundle_path.exists():
            raise RunError(f"{source} has no model.safetensors: it is not complete, or was committed without weights")
        precision = precision or folder.environment["numerics"]["precision"]
        data_name = data_name or folder.recipe["data"]["name"]
        source = folder.bundle_path
    if not source.exists():
        raise RunError(f"{source}: there is no such run folder or bundle")
    if data_name is None:
        raise ValueError(f"{source} is a bundle: name the data too, as in: reslearn evaluate {source} cifar10")
    bundle = read_bundle(source)
    dataset = data.load(data_name, data_dir=data_dir, size_px=bundle.preprocess.size_px)
    if dataset.classes != bundle.classes:
        raise ValueError(
            f"{data_name} has other classes than the network: {', '.join(dataset.classes[:3])}... and {', '.join(bundle.classes[:3])}..."
        )
    chosen = numerics.Numerics(
        device=numerics.choose_device(device),
        precision=precision or "fp32",
        compiled=False,
        threads=torch.get_num_threads(),
        instruction_set="",
    )
    net = bundle.network.to(chosen.device)
    batches = data.eval_batches(getattr(dataset, images), bundle.preprocess, device=chosen.device)
    return evaluate(net, batches, autocast=chosen.autocast())
