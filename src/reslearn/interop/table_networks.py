"""All networks in a table of tensors: by the names of dialects, by structure, and averages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reslearn.interop.averages import averages_of
from reslearn.interop.dialect import Dialect, dialects
from reslearn.interop.foreign_parts import (
    main_part,
)
from reslearn.interop.identity import Identity
from reslearn.interop.infer import NotAResNet, OtherDialect
from reslearn.interop.named_table import AnotherFunction, NamedTable, verify
from reslearn.interop.parts_beside import with_parts_beside
from reslearn.interop.projection import FOUND_BY_SHAPE
from reslearn.interop.stored import Checkpoint, StoredTensor
from reslearn.interop.structural_dialect import structural_dialect
from reslearn.interop.structure import PREACTIVATION, read_structures
from reslearn.interop.table_layers import MIN_KERNELS, leaf_of

_MAX_PREFIXES = 16
_MAX_NETWORKS = 32
_OTHER_CONVOLUTIONS = {
    3: "its convolutions have one dimension, as for signals",
    5: "its convolutions have three dimensions, as for videos and volumes",
}

Failures = list[tuple[tuple[int, int], str]]
"""Reasons why a table holds no network, each with its certainty."""


@dataclass(frozen=True, kw_only=True)
class TableNetworks:
    """The networks of a table in the order of the file; without any, the reason.

    Attributes:
        certainty: How certain the reason is, for comparison with the reasons of other tables.
    """

    identities: tuple[Identity, ...]
    reason: str = ""
    certainty: tuple[int, int] = (0, 0)


def networks_of_table(
    checkpoint: Checkpoint, entry: str, tensors: Mapping[str, StoredTensor]
) -> TableNetworks:
    """Identify all networks of a table.

    Args:
        tensors: The tensors of the entry, or those whose names begin as the user asked for.
    """
    by_dialect, failures = _by_dialects(checkpoint, entry, tensors)
    identities = _disjoint(by_dialect)
    complete = [identity for identity in identities if identity.num_classes is not None]
    for identity, notes in _by_structure(checkpoint, entry, tensors, failures, complete):
        identities = _with_structure(identities, identity, notes)
    if not identities:
        return _no_network(tensors, failures)
    used = {name for identity in identities for name in identity.names.values()}
    for identity in list(identities):
        identities += averages_of(identity, tensors, used)
    places = {name: position for position, name in enumerate(tensors)}
    identities.sort(key=lambda identity: places[next(iter(identity.names.values()))])
    shared = set(identities[0].unmatched).intersection(*(each.unmatched for each in identities))
    completed = [
        with_parts_beside(replace(identity, unmatched=_among(identity.unmatched, shared)), tensors)
        for identity in identities[:_MAX_NETWORKS]
    ]
    return TableNetworks(identities=tuple(completed))


def _no_network(tensors: Mapping[str, StoredTensor], failures: Failures) -> TableNetworks:
    """Return the most certain reason why a table holds no network."""
    num_dimensions = Counter(len(stored.shape) for stored in tensors.values())
    for number, reason in _OTHER_CONVOLUTIONS.items():
        if num_dimensions[number] > max(MIN_KERNELS, num_dimensions[4]):
            return TableNetworks(identities=(), reason=reason, certainty=(3, 0))
    certainty, reason = max(failures) if failures else ((0, 0), _first_names(tensors))
    part = main_part(tensors)
    if part is not None and part not in reason:
        reason += f"; its names show {part}"
    elif "group norm" not in reason and _has_norms_without_statistics(tensors):
        reason += (
            "; it has no running mean and variance, as networks with group norm or instance norm, "
            "and files of parameters without buffers"
        )
    return TableNetworks(identities=(), reason=reason, certainty=certainty)


def _has_norms_without_statistics(tensors: Mapping[str, StoredTensor]) -> bool:
    """Return whether layers normalize, and none of them as batch norm does."""
    leaves = {leaf_of(name) for name in tensors}
    has_vectors = any(
        len(stored.shape) == 1 and leaf_of(name) == "weight" for name, stored in tensors.items()
    )
    return has_vectors and "running_mean" not in leaves


def names_and_structure(
    checkpoint: Checkpoint, entry: str
) -> tuple[Sequence[Identity], Sequence[Identity]]:
    """Return the networks of a table by the names of dialects, and by structure alone.

    Both must agree where both read a table.
    """
    tensors = checkpoint.entries[entry]
    by_dialect, _ = _by_dialects(checkpoint, entry, tensors)
    by_structure = _by_structure(checkpoint, entry, tensors, [], [])
    return _disjoint(by_dialect), [identity for identity, _ in by_structure]


def _by_dialects(
    checkpoint: Checkpoint, entry: str, tensors: Mapping[str, StoredTensor]
) -> tuple[list[Identity], Failures]:
    identities: list[Identity] = []
    failures: Failures = []
    for dialect in dialects().values():
        for prefix in _prefixes(dialect, tensors):
            table = NamedTable(checkpoint, entry, tensors, dialect, prefix)
            num_named = len(table.native_names)
            try:
                identities.append(verify(table))
            except AnotherFunction as error:
                failures.append(((3, num_named), str(error)))
            except NotAResNet as error:
                # A dialect that knows few of the names has nothing to say about the table.
                if 10 * num_named > len(tensors):
                    # A dialect with the same names may fit, and may have a better reason.
                    is_near = 2 * num_named > len(tensors) and not isinstance(error, OtherDialect)
                    rank = 2 if is_near else 0
                    reason = f"the nearest dialect is {dialect.name}, but {error}"
                    failures.append(((rank, num_named), reason))
    return identities, failures


def _prefixes(dialect: Dialect, tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Return possible prefixes of all names: "", "module.", "backbone.bottom_up.", ...

    A prefix is the text before the name of the first convolution. In some dialects a block's
    first convolution has the same name, so each block adds a longer prefix; resnet1202 has 600
    blocks. Only the shortest prefixes are returned.
    """
    candidates = [dialect.foreign_name(f"stem.{conv}.weight") for conv in ("conv", "conv1")]
    first_names = [name for name in candidates if name]
    prefixes: set[str] = set()
    for name in tensors:
        for first_name in first_names:
            if name == first_name or name.endswith("." + first_name):
                prefixes.add(name.removesuffix(first_name))
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))[:_MAX_PREFIXES]


def _by_structure(
    checkpoint: Checkpoint,
    entry: str,
    tensors: Mapping[str, StoredTensor],
    failures: Failures,
    complete: Sequence[Identity],
) -> list[tuple[Identity, tuple[str, ...]]]:
    """Return the networks that are read by structure, with notes; add reasons to `failures`.

    Args:
        complete: Networks that are known with their heads, so that structure adds nothing.
    """
    used = {name for identity in complete for name in identity.names.values()}
    readings, problem = read_structures(tensors)
    if problem is not None:
        # It explains why a dialect with the names of another network lacks a tensor.
        rank = (2, len(tensors) + 1) if PREACTIVATION in problem else (1, 0)
        failures.append((rank, problem))
    identities: list[tuple[Identity, tuple[str, ...]]] = []
    for reading in readings:
        if used.intersection(reading.names.values()):
            continue
        dialect = structural_dialect(reading)
        table = NamedTable(checkpoint, entry, tensors, dialect, reading.prefix)
        try:
            identities.append((verify(table), reading.notes))
        except AnotherFunction as error:
            failures.append(((3, len(reading.names)), str(error)))
        except NotAResNet as error:
            failures.append(((1, len(reading.names)), str(error)))
    return identities


def _disjoint(identities: Sequence[Identity]) -> list[Identity]:
    """Return identities without common tensors. Those that explain most tensors come first."""
    chosen: list[Identity] = []
    used: set[str] = set()
    for identity in sorted(identities, key=lambda identity: -len(identity.names)):
        names = set(identity.names.values())
        if not names & used:
            chosen.append(identity)
            used |= names
    return chosen


def _with_structure(
    identities: list[Identity], by_structure: Identity, notes: tuple[str, ...]
) -> list[Identity]:
    """Add a network that was read by structure, or only its head if a dialect knows the trunk."""
    names = set(by_structure.names.values())
    overlapping = [each for each in identities if names & set(each.names.values())]
    if not overlapping:
        return [*identities, replace(by_structure, notes=by_structure.notes + notes)]
    by_name = overlapping[0]
    if by_name.num_classes is not None:
        return identities
    dialect = by_name.dialect
    is_convertible = not (dialect.transforms or dialect.extra)
    if by_structure.num_classes is None or not is_convertible or len(overlapping) > 1:
        merged = replace(by_name, notes=by_name.notes + notes)
    else:
        exact = by_structure.dialect
        head = by_structure.names["head.fc.weight"]
        merged = replace(
            by_name,
            dialect=replace(dialect, exact_names=exact.exact_names, transforms=exact.transforms),
            num_classes=by_structure.num_classes,
            names=by_structure.names,
            unmatched=by_structure.unmatched,
            notes=(*by_name.notes, f"{FOUND_BY_SHAPE}: {head}"),
        )
    return [merged if each is by_name else each for each in identities]


def _among(names: Sequence[str], selected: set[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in selected)


def _first_names(tensors: Mapping[str, StoredTensor]) -> str:
    return f"it has {len(tensors)} tensors: {', '.join(list(tensors)[:3])}, ..."
