"""The claims that a reader of the paper's first page takes away, one module each: c01 to c14."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import cast

from reslearn.paper.claim import ClaimModule


def load_claims(only: Sequence[str] = ()) -> list[ClaimModule]:
    """The modules of the claims named ("C1", "C8"; all by default), in order. ValueError for a claim that does not exist."""
    names = sorted(
        module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("c")
    )
    modules = {f"C{int(name[1:])}": name for name in names}
    for wanted in only:
        if wanted not in modules:
            raise ValueError(f"no claim {wanted!r}: there are {', '.join(modules)}")
    chosen = [name for identifier, name in modules.items() if not only or identifier in only]
    return [cast(ClaimModule, importlib.import_module(f"{__name__}.{name}")) for name in chosen]
