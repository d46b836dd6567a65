"""Averages of a network beside it in the same table, or of its parameters in another table.

In the same table, their names are made from the names of the network.

MMDetection's hook registers `ema_backbone_conv1_weight` beside `backbone.conv1.weight`, since names
of buffers have no dots. Other tools leave the dots out (`model_ema.conv1weight`) or append a word.

Tools that average parameters only, such as `ema.shadow` and the list `shadow_params` of torch_ema,
have no statistics of batch norm. The statistics of the network are taken.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from reslearn.interop.identity import NUM_BATCHES_TRACKED, Identity
from reslearn.interop.named_table import common_path
from reslearn.interop.stored import StoredTensor, is_average
from reslearn.interop.table_layers import leaf_of

_SEPARATORS = ("_", "", ".")
_STATISTICS = ("running_mean", "running_var", NUM_BATCHES_TRACKED)
# The state of optimizers has the names and shapes of parameters too.
_GRADIENTS = re.compile(r"momentum|exp_avg|grad|velocity", re.I)

Table = Mapping[str, StoredTensor]


@dataclass(frozen=True, kw_only=True)
class AverageNaming:
    """How the name of an average follows from the name of its tensor.

    Attributes:
        num_removed: Parts that are removed from the beginning of the name, such as "module".
        separator: Stands between the other parts instead of a dot.
        before: Text before them.
        after: Text behind them.
    """

    num_removed: int
    separator: str
    before: str
    after: str

    def name_of(self, name: str) -> str:
        """Return the name of the average of a tensor."""
        parts = name.split(".")[self.num_removed :]
        return f"{self.before}{self.separator.join(parts)}{self.after}"


def averages_of(
    identity: Identity, tensors: Mapping[str, StoredTensor], used: Set[str]
) -> list[Identity]:
    """Return the averages of a network that lie in its own table.

    Every weight and bias must have an average of its shape. Statistics of batch norm without one
    are those of the network.

    Args:
        used: Names of tensors that belong to the networks of the table.
    """
    if identity.dialect.extra:
        return []
    averages = []
    for naming in _namings(identity, tensors, used):
        names = _names_of_average(identity, tensors, naming)
        if names is not None:
            averages.append(_average(identity, naming, names))
    return averages


def separate_average(entry: str, table: Table, networks: Sequence[Identity]) -> Identity | None:
    """Return the average of the parameters of a network in another table.

    Args:
        entry: The place of the average.
        networks: Networks of other tables. The first that fits by name, or by order if the average
            is a list, gives the statistics.

    Returns:
        None if no network fits, or if the name says that gradients are averaged.
    """
    if _GRADIENTS.search(entry):
        return None
    is_list = all(name.isdecimal() for name in table)
    for network in networks:
        tensors = network.tensors
        named = _by_order(tensors, table) if is_list else table
        averages = {f"{entry}.{name}": stored for name, stored in named.items()}
        for average in averages_of(network, {**averages, **tensors}, tensors.keys()):
            source = network.entry or "the file itself"
            parts = ["order" if is_list else "names"]
            if any(name not in averages for name in average.names.values()):
                parts.append("batch-norm statistics")
            note = f"{entry} is an average: its {' and '.join(parts)} are those of {source}"
            entries = {**network.checkpoint.entries, entry: {**tensors, **averages}}
            return replace(
                average,
                checkpoint=replace(network.checkpoint, entries=entries),
                entry=entry,
                notes=(*network.notes, note),
            )
    return None


def _by_order(tensors: Table, table: Table) -> Table:
    """Return a list of parameters under the names of those of a network; none if they differ."""
    parameters = [name for name in tensors if leaf_of(name) not in _STATISTICS]
    averaged_shapes = [stored.shape for stored in table.values()]
    for names in (parameters, list(tensors)):
        if [tensors[name].shape for name in names] == averaged_shapes:
            return dict(zip(names, table.values(), strict=True))
    return {}


def _namings(
    identity: Identity, tensors: Mapping[str, StoredTensor], used: Set[str]
) -> list[AverageNaming]:
    """Return how averages may be named, from the names that end or begin like the first one."""
    first_name = next(iter(identity.names.values()))
    shape = tensors[first_name].shape
    candidates = [
        name for name, stored in tensors.items() if stored.shape == shape and name not in used
    ]
    namings: dict[str, AverageNaming] = {}
    for num_removed in range(len(common_path(identity.names.values())) + 1):
        for separator in _SEPARATORS:
            flat = separator.join(first_name.split(".")[num_removed:])
            for name in candidates:
                before, match, after = name.partition(flat)
                is_affix = bool(match) and not (before and after)
                if is_affix and is_average(before + after):
                    naming = AverageNaming(
                        num_removed=num_removed, separator=separator, before=before, after=after
                    )
                    namings.setdefault(name, naming)
    return list(namings.values())


def _names_of_average(
    identity: Identity, tensors: Mapping[str, StoredTensor], naming: AverageNaming
) -> dict[str, str] | None:
    """Return the names of the average by native name; None if a weight or bias has none."""
    names: dict[str, str] = {}
    for native_name, name in identity.names.items():
        average = tensors.get(naming.name_of(name))
        if average is not None and average.shape == tensors[name].shape:
            names[native_name] = naming.name_of(name)
        elif native_name.endswith((".weight", ".bias")):
            return None
        else:
            names[native_name] = name
    return names


def _average(identity: Identity, naming: AverageNaming, names: dict[str, str]) -> Identity:
    shared = set(names.values()) & set(identity.names.values())
    num_statistics = sum(name.endswith("running_var") for name in shared)
    notes = identity.notes
    if num_statistics:
        notes = (*notes, "batch-norm statistics have no average, and are those of the network")
    average_names = set(names.values())
    return replace(
        identity,
        prefix=naming.before or naming.after,
        names=names,
        dialect=replace(identity.dialect, exact_names=names),
        unmatched=tuple(name for name in identity.unmatched if name not in average_names),
        notes=notes,
    )
