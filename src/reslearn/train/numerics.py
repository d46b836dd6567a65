"""How a step is computed: precision, memory format, compilation, threads. One value decides, and the record says what it was.

`precision = auto` takes bf16 autocast where the processor or GPU computes in it, since it saves a quarter of a step and the
outcome was no other by more than seeds differ (LOG.md); float32 elsewhere. Two runs agree bit for bit only where all of `Numerics`
agrees, so a resumed run obeys the record.
"""

import ctypes
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from reslearn.recipes import Train
from reslearn.runs import RunError

# Compiling costs 20 to 80 seconds and saves some per cent of a step (LOG.md): it pays above about this many MACs (forward, all images).
_COMPILE_PAYS_MACS = {"cpu": 4e13, "cuda": 3e14}
# Below about this many MACs an image (resnet20 on 8 x 8 digits has 2.5 million) bf16 saves too little of a step to be worth its rounding.
_BF16_PAYS_MACS = 10e6


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """All that the bits of a run depend on, beside recipe and data."""

    device: str
    precision: str  # fp32 or bf16
    compiled: bool
    threads: int  # of each process
    instruction_set: str
    processes: int = 1
    replayed: bool = False  # steps as a CUDA graph

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the network runs forward."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for environment.json."""
        return asdict(self)


def choose_device(name: str | None) -> str:
    """The device asked for, or CUDA where there is one, else the CPU. ValueError where it is not there."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"--device {name}: cpu, cuda or cuda:N is needed")
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise ValueError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices that torch can use"
        )
    return name


def choose(
    train: Train,
    *,
    device: str,
    threads: int | None,
    macs: int,
    num_images: int,
    processes: int = 1,
) -> Numerics:
    """What `auto` takes here for a network of `macs` an image trained on `num_images` images in all, by so many processes."""
    fast_bf16 = _computes_in_bf16(device) and macs >= _BF16_PAYS_MACS
    # Alone: what compilation saves beside the sums over processes has not been measured.
    pays = macs * num_images >= _COMPILE_PAYS_MACS[torch.device(device).type] and processes == 1
    compiled = pays if train.compile == "auto" else train.compile == "on"
    return Numerics(
        device=device,
        precision=("bf16" if fast_bf16 else "fp32")
        if train.precision == "auto"
        else train.precision,
        compiled=compiled,
        threads=threads or torch.get_num_threads(),
        instruction_set=_instruction_set(device),
        processes=processes,
        replayed=device.startswith("cuda") and processes == 1,
    )


def obey(
    record: dict[str, Any], *, device: str | None, threads: int | None, processes: int = 1
) -> Numerics:
    """The numerics of an earlier part of the run, from its environment.json. RunError where this machine or the flags cannot give them."""
    try:
        numerics, version = Numerics(**record["numerics"]), record["versions"]["torch"]
    except (KeyError, TypeError, RunError) as error:
        raise RunError(
            f"environment.json does not say how the run began ({error}): start anew in another folder"
        ) from None
    if version != torch.__version__:
        raise RunError(
            f"the run began with torch {version}, here is {torch.__version__}: it cannot go on bit for bit; start anew elsewhere"
        )
    if numerics.processes != processes:
        began, here = (
            f"{number} processes" if number > 1 else "1 process"
            for number in (numerics.processes, processes)
        )
        launcher = (
            f"torchrun --nproc-per-node {numerics.processes} -m " if numerics.processes > 1 else ""
        )
        raise RunError(
            f"the run began on {began}, here: {here}; go on with {launcher}reslearn train --resume ..."
        )
    try:
        here = _instruction_set(choose_device(numerics.device))
    except ValueError:
        raise RunError(
            f"the run began on {numerics.device}, which is not here: start anew in another folder"
        ) from None
    if here != numerics.instruction_set:
        raise RunError(
            f"the run began on {numerics.instruction_set}, here is {here}: it cannot go on bit for bit; start anew in another folder"
        )
    if device is not None and device != numerics.device:
        raise RunError(
            f"the run began on {numerics.device}: leave --device {device} out, or start anew in another folder"
        )
    if threads is not None and threads != numerics.threads:
        raise RunError(
            f"the run began with {numerics.threads} threads: leave --threads {threads} out, or start anew in another folder"
        )
    return numerics


def prepare(numerics: Numerics) -> None:
    """Set the process up for `numerics`: threads, deterministic kernels, memory that is kept instead of given back."""
    torch.set_num_threads(numerics.threads)
    choose_kernels(numerics.device)
    if not numerics.device.startswith("cuda"):
        _keep_memory()


def choose_kernels(device: str) -> None:
    """On a GPU: the same from start to start, and float32 where fp32 is said."""
    if device.startswith("cuda"):
        torch.backends.cudnn.benchmark = (
            False  # its choice of kernels would differ from start to start
        )
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False  # what is to be fast is bf16


def _keep_memory() -> None:
    """Tell glibc's malloc to keep what is freed: else every step gives its large blocks back and faults them in again."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 * 2**20)


def _computes_in_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return bool(
        has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")
    )  # bf16: ARM's name for it


def _instruction_set(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability() + ("+bf16" if _computes_in_bf16(device) else "")
