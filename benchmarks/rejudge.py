"""Judge the committed runs again and compare verdicts and numbers with an earlier judgment.

    python -m benchmarks.rejudge collect FOLDER     # with the code of one commit
    python -m benchmarks.rejudge compare A B        # two such folders; exit status 1 if they differ

`collect` copies results/, runs the commands below with `--json`, and also records recipe hashes and
the names and shapes of all weights. Use it before and after a change that must not move a number.
It takes about two minutes, and `--demo` adds the fourteen claims on digits (training included).
"""

import argparse
import hashlib
import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXHIBITS = ("fig1", "fig6", "fig7", "table6")
JUDGMENTS = {
    **{
        f"degradation-{name}": [name, "--budget", "short", "--out", "results/degradation"]
        for name in EXHIBITS
    },
    **{
        f"degradation-32px-{name}": [
            *(name, "--budget", "medium", "--depths", "20,32,56"),
            *("--out", "results/degradation-32px"),
        ]
        for name in EXHIBITS
    },
    "ambiguities": [
        *("ambiguities", "--budget", "short", "--seeds", "5", "--out", "results/ambiguities")
    ],
}
# Wording may change; numbers, verdicts and their order may not.
WORDING = {"because", "measured", "notes", "page", "rule", "seconds", "text", "title", "what"}


def collect(folder: Path, *, with_demo: bool) -> None:
    """Write one JSON file per judgment into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "results", folder / "results", dirs_exist_ok=True)
    for name, arguments in JUDGMENTS.items():
        _run_json(["paper", *arguments], folder, name)
    if with_demo:
        _run_json(["demo", "--out", "demo"], folder, "demo")
    (folder / "facts.json").write_text(json.dumps(facts(), indent=1, sort_keys=True))


def _run_json(arguments: list[str], folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "reslearn", *arguments, "--json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: {result.stderr}")
    (folder / f"{name}.json").write_text(result.stdout)


def facts() -> dict[str, Any]:
    """Return recipe hashes, and a hash of the names and shapes of the weights of each network."""
    import torch

    from reslearn import models, recipes

    hashes = {name: recipes.recipe_hash(recipes.load(name).to_dict()) for name in recipes.names()}
    weights: dict[str, Any] = {}
    for name in models.names():
        if name.endswith("1202"):  # slow to build, and built like the others
            continue
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = models.build(name, num_classes=10)
        shapes = [(key, list(value.shape)) for key, value in network.state_dict().items()]
        weights[name] = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
        weights[f"{name}:spec"] = network.spec
    return {"hash": hashes, "state": weights}


def compare(before: Path, after: Path) -> int:
    """Print the differences between two folders of judgments; return their number."""
    names = sorted(path.name for path in before.glob("*.json"))
    num_values = num_differences = 0
    for name in names:
        if not (after / name).exists():
            print(f"{name}: missing in {after}")
            num_differences += 1
            continue
        old, new = (json.loads((folder / name).read_text()) for folder in (before, after))
        for place, old_value, new_value in _differences(old, new, name):
            print(f"{place}: {old_value!r} became {new_value!r}")
            num_differences += 1
        num_values += sum(1 for _ in _leaves(old))
    print(f"{len(names)} files, {num_values} values compared, {num_differences} differences")
    return num_differences


def _differences(old: Any, new: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - WORDING):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (old_item, new_item) in enumerate(zip(old, new, strict=True)):
            yield from _differences(old_item, new_item, f"{place}[{index}]")
    elif not _equal(old, new):
        yield place, old, new


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
    return bool(old == new)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in WORDING:
                yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def main() -> int:
    """Run `collect` or `compare`."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    collector = commands.add_parser("collect")
    collector.add_argument("folder", type=Path)
    collector.add_argument("--demo", action="store_true")
    comparer = commands.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.folder, with_demo=arguments.demo)
        return 0
    return 1 if compare(arguments.before, arguments.after) else 0


if __name__ == "__main__":
    raise SystemExit(main())
