"""One loop in a process of its own, which trains on request and reports how far it got.

Each loop has a process because the settings of the memory allocator hold for a whole process. It
talks in lines of JSON. Once warm, it describes itself on standard output. Then it answers each line
{"seconds": S} with what it did in S seconds.

For benchmarks/train.py, not for people:
`python -m benchmarks.contestant --loop ours --model resnet20 --threads 2`
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

NUM_WARM_STEPS = 4
# plain: the plainest loop in float32. The others are in peer_loop.py, compiled or not.
RIVALS = (
    "plain",
    *(peer + way for peer in ("autocast", "torchvision", "timm") for way in ("", "-compiled")),
)


def matrix_product_flops(dtype: torch.dtype, *, device: str, seconds: float) -> float:
    """Measure the floating-point operations per second of square matrix products.

    A multiply-add counts as two. The measurement takes at least `seconds`.
    """
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.mm(a, b)
    num, started = 0, _now(device)
    while not num or _now(device) - started < seconds:
        torch.mm(a, b, out=out)
        num += 1
    return 2 * size**3 * num / (_now(device) - started)


def turns(*, about: dict[str, Any], batch_size: int, device: str) -> Iterator[None]:
    """Yield once for each step that the loop is to make: to warm up, then in turns.

    Prints `about` and the seconds that the warm-up took. Each line of standard input is a turn.
    """
    started = _now(device)
    for _ in range(NUM_WARM_STEPS):
        yield
    dtype = torch.bfloat16 if about["precision"] == "bf16" else torch.float32
    _send({**about, "warm_up_seconds": _now(device) - started})
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        flops = matrix_product_flops(dtype, device=device, seconds=seconds / 10)
        num, started, others = 0, _now(device), _seconds_of_others()
        while not num or _now(device) - started < seconds:
            yield
            num += 1
        elapsed = _now(device) - started
        others_pct = (
            100 * max(0.0, _seconds_of_others() - others) / (elapsed * (os.cpu_count() or 1))
        )
        _send(
            {
                "images": num * batch_size,
                "seconds": elapsed,
                "matrix_product_flops": flops,
                "others_pct": others_pct,
            }
        )


def run_steps(steps: Iterator[object], turns: Iterable[object]) -> None:
    """Make one step per turn; a loop that returns losses must not diverge."""
    for _ in turns:
        loss = next(steps)
        assert not isinstance(loss, float) or math.isfinite(loss), "the plain loop diverged"


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds_of_others() -> float:
    """Return the processor seconds of all other processes since the machine started.

    All cores are added up. The result is 0 on systems that do not report it.
    """
    if not sys.platform.startswith("linux"):
        return 0.0
    # user nice system idle iowait irq softirq steal, in ticks (proc(5))
    words = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, words)
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def _send(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def synthetic_images(
    *, size_px: int, num_images: int, num_classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return random images uint8 [N, H, W, 3] and labels int64 [N]; the last class occurs.

    The speed of a loop does not depend on what images show.
    """
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (num_images, size_px, size_px, 3), dtype=np.uint8)
    labels = generator.integers(0, num_classes, num_images)
    labels[-1] = num_classes - 1
    return pixels, labels


def parse_arguments() -> argparse.Namespace:
    """Read the command line of benchmarks/train.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["ours", *RIVALS], required=True)
    parser.add_argument("--without", default=None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size-px", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--num-images", type=int, required=True)
    parser.add_argument("--num-classes", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def main() -> None:
    """Build the loop of the command line and serve it."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    pixels, labels = synthetic_images(
        size_px=arguments.size_px,
        num_images=arguments.num_images,
        num_classes=arguments.num_classes,
    )
    if arguments.loop == "plain":
        from benchmarks.plain_loop import plain_loop

        steps: Iterator[object] = plain_loop(
            arguments.model,
            pixels,
            labels,
            batch_size=arguments.batch_size,
            device=arguments.device,
        )
        about: dict[str, Any] = {"precision": "fp32", "compiled": False}
    elif arguments.loop in RIVALS:
        from benchmarks.peer_loop import peer_loop

        peer, compiled = (
            arguments.loop.removesuffix("-compiled"),
            arguments.loop.endswith("-compiled"),
        )
        steps = peer_loop(
            peer,
            arguments.model,
            pixels,
            labels,
            batch_size=arguments.batch_size,
            device=arguments.device,
            compiled=compiled,
        )
        about = {"precision": "bf16", "compiled": compiled}
    else:
        from benchmarks.our_loop import Part, our_loop

        ours = our_loop(
            arguments.model,
            pixels,
            labels,
            batch_size=arguments.batch_size,
            device=arguments.device,
            threads=arguments.threads,
            without=Part(arguments.without) if arguments.without else None,
        )
        ours.run(
            turns(
                about=ours.numerics.to_dict(),
                batch_size=arguments.batch_size,
                device=arguments.device,
            )
        )
        return
    run_steps(steps, turns(about=about, batch_size=arguments.batch_size, device=arguments.device))


if __name__ == "__main__":
    main()
