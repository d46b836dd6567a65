"""Make a shipped network out of a finished run: a bundle in half precision, and its measured error.

    python -m benchmarks.ship runs/cifar-fast-seed0 resnet20 [--data-dir FOLDER]

The file goes to src/reslearn/interop/shipped/, and its entry replaces the old one in shipped.toml.
The error is of the file as shipped, on all test images. It is measured once.
"""

import argparse
import tomllib
from pathlib import Path

from reslearn.interop import read_bundle, shipped, to_bytes
from reslearn.runs import RunFolder, check_weights
from reslearn.train import Machine, evaluate_bundle

FOLDER = Path(shipped.__file__).parent / "shipped"
HEAD = """\
# Trained networks that come with the package. benchmarks/ship.py writes the files and these lines.
"""


def main() -> None:
    """Write the bundle and its entry in the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    run = RunFolder.open(arguments.run)
    check_weights(run, run.bundle_path)
    bundle = read_bundle(run.bundle_path, recipe_hash=run.recipe_hash)
    recipe, environment = run.recipe, run.environment
    data = str(recipe["data"]["name"])
    path = FOLDER / f"{arguments.name}-{data}.safetensors"
    kept = ("steps", "epochs", "test_top1_error_pct", "train_top1_error_pct", "parameters", "macs")
    content = to_bytes(
        bundle.network,
        spec=bundle.network.spec,
        classes=bundle.classes,
        preprocess=bundle.preprocess,
        metrics={key: run.result[key] for key in kept},
        recipe_hash=run.recipe_hash,
        half_precision=True,
        temperature=None if bundle.temperature == 1 else bundle.temperature,
    )
    path.write_bytes(content)
    metrics = evaluate_bundle(path, data, Machine(data_dir=arguments.data_dir), precision="fp32")
    entry = {
        "file": path.name,
        "data": data,
        "recipe": recipe["name"],
        "seed": recipe["seed"],
        "test_error_pct": metrics.top1_error_pct,
        "test_images": metrics.num_images,
        "processor": environment["processor"],
        "license": "Apache-2.0",
    }
    table_path = FOLDER / "shipped.toml"
    table = tomllib.loads(table_path.read_text(encoding="utf-8"))
    table[arguments.name] = entry
    table_path.write_text(_toml(table), encoding="utf-8")
    print(f"{path}: {len(content):,} bytes, test error {metrics.top1_error_pct:.2f} %")


def _toml(table: dict[str, dict[str, object]]) -> str:
    lines = [HEAD]
    for name, entry in sorted(table.items()):
        lines.append(f"[{name}]")
        for key, value in entry.items():
            lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
