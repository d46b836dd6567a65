"""The claims that a reader of the paper's first page takes away, one module each: c01 to c14."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import cast

from reslearn.paper.experiment import ExperimentModule


def load_claims(only: Sequence[str] = ()) -> list[ExperimentModule]:
    """Return the modules of claims, in order.

    Args:
        only: Names such as "C1" and "C8". All claims by default.

    Raises:
        ValueError: For a claim that does not exist.
    """
    modules = {
        f"C{int(module.name[1:])}": module.name
        for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    }
    for claim in only:
        if claim not in modules:
            raise ValueError(f"there is no claim {claim!r}; allowed are {', '.join(modules)}")
    return [
        cast(ExperimentModule, importlib.import_module(f"{__name__}.{module}"))
        for claim, module in modules.items()
        if not only or claim in only
    ]
