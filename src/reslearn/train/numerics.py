"""How a step is computed: precision, compilation, threads. The environment of a run records it.

With `precision = "auto"`, training uses bf16 autocast if the processor or the GPU computes in bf16.
It saves a quarter of a step, and the outcomes differ no more than between seeds (LOG.md).
Elsewhere it uses float32. Two runs agree bit for bit only if all of `Numerics` agrees. A resumed
run therefore uses the recorded numerics again.
"""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import reslearn
from reslearn.data import ImageData
from reslearn.recipes import Train
from reslearn.runs import FORMAT, RunError

# Compilation costs 20 to 80 seconds and saves some percent of a step (LOG.md). It pays above about
# this many multiply-adds (forward pass, all images of the run).
_COMPILE_PAYS_MACS = {"cpu": 4e13, "cuda": 3e14}
# Below about this many multiply-adds per image, bf16 saves too little of a step to be worth its
# rounding. resnet20 on 8 x 8 digits has 2.5 million.
_BF16_PAYS_MACS = 10e6
_AFRESH = "start again in another folder"


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Everything that the bits of a run depend on, apart from the recipe and the data."""

    device: str
    precision: str  # "fp32" or "bf16"
    compiled: bool
    threads: int  # of each process
    instruction_set: str
    processes: int = 1
    replayed: bool = False  # steps as a CUDA graph

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values for environment.json."""
        return asdict(self)


def choose_device(name: str | None) -> str:
    """Return the requested device; by default CUDA if there is a GPU, else the CPU.

    Raises:
        ValueError: If there is no such device on this machine.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        is_known = device.type in ("cpu", "cuda")
    except RuntimeError:
        is_known = False
    if not is_known:
        raise ValueError(f"--device {name} is unknown: use cpu, cuda or cuda:N")
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        usable_devices = ", ".join(["cpu", *(f"cuda:{index}" for index in range(num_gpus))])
        raise ValueError(
            f"--device {name}: torch can use {num_gpus} CUDA devices here; "
            f"allowed here: {usable_devices}"
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
    """Choose the numerics of a new run.

    Args:
        train: The recipe's precision and compilation, which may be "auto".
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads of each process; None: torch's default.
        macs: Multiply-adds of the network per image.
        num_images: Images that pass through the network in the whole run.
        processes: Number of processes that train together.
    """
    precision: str = train.precision
    if precision == "auto":
        pays = _computes_in_bf16(device) and macs >= _BF16_PAYS_MACS
        precision = "bf16" if pays else "fp32"
    compiled = train.compile == "on"
    if train.compile == "auto":
        # With many processes the gain of compilation has not been measured.
        limit = _COMPILE_PAYS_MACS[torch.device(device).type]
        compiled = macs * num_images >= limit and processes == 1
    return Numerics(
        device=device,
        precision=precision,
        compiled=compiled,
        threads=threads or torch.get_num_threads(),
        instruction_set=_instruction_set(device),
        processes=processes,
        replayed=device.startswith("cuda") and processes == 1,
    )


def obey(
    environment: dict[str, Any], *, device: str | None, threads: int | None, processes: int = 1
) -> Numerics:
    """Return the numerics with which a run began.

    Args:
        environment: The content of environment.json.
        device: The device that the user asks for; None: the recorded one.
        threads: The number of threads that the user asks for; None: the recorded one.
        processes: Number of processes here.

    Raises:
        RunError: If this machine or the user's options do not allow the same numerics.
    """
    try:
        numerics = Numerics(**environment["numerics"])
        torch_version = environment["versions"]["torch"]
    except (KeyError, TypeError, RunError) as error:
        raise RunError(
            f"environment.json does not record how the run began ({error}): {_AFRESH}"
        ) from None
    if torch_version != torch.__version__:
        raise RunError(
            f"the run began with torch {torch_version}, but this is torch {torch.__version__}: "
            f"it cannot be resumed bit for bit; {_AFRESH}"
        )
    if numerics.processes != processes:
        raise RunError(_other_processes(numerics.processes, processes))
    _check_instruction_set(numerics)
    if device is not None and device != numerics.device:
        raise RunError(
            f"the run began on {numerics.device}: remove --device {device}, or {_AFRESH}"
        )
    if threads is not None and threads != numerics.threads:
        raise RunError(
            f"the run began with {numerics.threads} threads: remove --threads {threads}, "
            f"or {_AFRESH}"
        )
    return numerics


def _other_processes(recorded: int, processes: int) -> str:
    before, now = (
        f"{number} processes" if number > 1 else "1 process" for number in (recorded, processes)
    )
    launcher = f"torchrun --nproc-per-node {recorded} -m " if recorded > 1 else ""
    return (
        f"the run began on {before}, but this is {now}: "
        f"continue with: {launcher}reslearn train --resume ..."
    )


def _check_instruction_set(numerics: Numerics) -> None:
    try:
        instruction_set = _instruction_set(choose_device(numerics.device))
    except ValueError:
        raise RunError(
            f"the run began on {numerics.device}, which this machine does not have: {_AFRESH}"
        ) from None
    if instruction_set != numerics.instruction_set:
        raise RunError(
            f"the run began on {numerics.instruction_set}, but this is {instruction_set}: "
            f"it cannot be resumed bit for bit; {_AFRESH}"
        )


def prepare(numerics: Numerics) -> None:
    """Set threads, deterministic kernels and an allocator that keeps memory, for this process."""
    torch.set_num_threads(numerics.threads)
    choose_kernels(numerics.device)
    if not numerics.device.startswith("cuda"):
        keep_freed_memory()


def choose_kernels(device: str) -> None:
    """On a GPU, use the same kernels in every run, and float32 where the precision is fp32."""
    if device.startswith("cuda"):
        # Benchmarking would choose different kernels from run to run.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False  # bf16 is the fast precision


def keep_freed_memory() -> None:
    """Let malloc of glibc keep freed memory.

    Otherwise every step returns its large blocks to the system and faults them in again.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 * 2**20)


def _computes_in_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    # "bf16" is the name of the capability on ARM.
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _instruction_set(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability() + ("+bf16" if _computes_in_bf16(device) else "")


def describe_environment(
    numerics: Numerics, dataset: ImageData, command: Sequence[str]
) -> dict[str, Any]:
    """Return the content of environment.json.

    It is a fixed list of facts and never holds environment variables.
    """
    device = "cpu"
    if numerics.device.startswith("cuda"):
        device = torch.cuda.get_device_name(numerics.device)
    return {
        "format": FORMAT,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "reslearn": reslearn.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "device": device,
        "commit": _commit(),
        "command": list(command),
        "numerics": numerics.to_dict(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "skipped": dataset.skip_log.record(),
        },
    }


def processor_name() -> str:
    """Return the name of the processor, as its manufacturer wrote it."""
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str | None:
    """Return the commit of the running source tree, or None if it is not a git checkout.

    "+changes" is appended if files differ from the commit.
    """
    try:
        # This fails if reslearn is installed somewhere below a repository of another project.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(Path(__file__).parent), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.strip()
