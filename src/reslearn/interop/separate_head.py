"""Heads that lie in another table of the file than their network.

Trainings save `{"backbone": ..., "head": ...}`, or add `classifier_state_dict`. Such a head is
taken only if nothing else may be the head. Otherwise a note names what is left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from reslearn.interop.identity import Identity
from reslearn.interop.parts_beside import num_features
from reslearn.interop.stored import Checkpoint, StoredTensor, abbreviate, is_average
from reslearn.interop.table_layers import layers_of, may_hold_network
from reslearn.interop.table_networks import networks_of_table

_NUM_LISTED = 3
_HEAD_WORDS = re.compile(r"head|classif|fc|linear|logit|cls|probe", re.I)
# Heads that are trained for something else than the classes.
_OTHER_WORDS = re.compile(r"aux|domain|discrim|adv|rot|jigsaw|loss|criterion", re.I)

Table = Mapping[str, StoredTensor]


def with_separate_head(identity: Identity) -> Identity:
    """Return a network without a head with the head from another table, or with a note about it.

    A table is the head if its name says so, and it holds one matrix [classes, features] with a bias
    or none. No other matrix of the file may fit. Averages have heads of averages.
    """
    if identity.num_classes is not None:
        return identity
    width = num_features(identity)
    other_tables = dict(_other_tables(identity.checkpoint, identity.entry))
    tables = {name: table for name, table in other_tables.items() if _fits(table, width)}
    if not tables:
        return _without_fitting_head(identity, other_tables)
    alike = [name for name in tables if is_average(name) == is_average(identity.entry)]
    if len(alike) == 1 and not any(_is_matrix(identity, name) for name in identity.unmatched):
        name, table = alike[0], tables[alike[0]]
        with_head = _joined(identity, name, table) if _is_head(name, table) else None
        if with_head is not None:
            return with_head
    labels = abbreviate([name or "the file itself" for name in tables], _NUM_LISTED)
    note = (
        f"a matrix in another table ({labels}) can take the same features, and is left out, so "
        "there are no classes: it may not be the head of this network, or not all of it"
    )
    return replace(identity, notes=(*identity.notes, note))


def _without_fitting_head(identity: Identity, tables: Mapping[str, Table]) -> Identity:
    """Return a network without a head, with a note if a table is named as a head and has none."""
    heads = [name for name in tables if _HEAD_WORDS.search(name)]
    if not heads or any("no classes" in note for note in identity.notes):
        return identity
    note = (
        f"no matrix of {abbreviate(heads, _NUM_LISTED)} takes the {num_features(identity)} "
        "features of the network: it is left out, so there are no classes"
    )
    return replace(identity, notes=(*identity.notes, note))


def _other_tables(checkpoint: Checkpoint, entry: str) -> Iterator[tuple[str, Table]]:
    """Yield the tables that hold no network, each once."""
    yielded: set[int] = set()
    for name, table in (*checkpoint.entries.items(), *checkpoint.small_tables.items()):
        if name != entry and not may_hold_network(table) and id(table) not in yielded:
            yielded.add(id(table))
            yield name, table


def _fits(table: Table, width: int) -> bool:
    shapes = [layer.shape[1:] for layer in layers_of(table)]
    return (width,) in shapes or (width, 1, 1) in shapes


def _is_matrix(identity: Identity, name: str) -> bool:
    return identity.tensors[name].shape[1:] == (num_features(identity),)


def _is_head(name: str, table: Table) -> bool:
    """Return whether a table is one matrix of several classes, and its name says so."""
    layer = layers_of(table)[0]
    words = f"{name}.{layer.label}"
    biases = [stored.shape for leaf, stored in table.items() if leaf != layer.label]
    return (
        layer.kind == "matrix"
        and layer.shape[0] > 1
        and set(table) == set(layer.names.values())
        and biases in ([], [layer.shape[:1]])
        and _HEAD_WORDS.search(words) is not None
        and _OTHER_WORDS.search(words) is None
    )


def _joined(identity: Identity, name: str, table: Table) -> Identity | None:
    """Return the network of both tables; None if the second one is not read as its head."""
    checkpoint, entry = identity.checkpoint, identity.entry
    beginning = f"{name}." if name else ""
    head = {beginning + leaf for leaf in table}
    tensors = {**checkpoint.entries[entry]}
    for leaf, stored in table.items():
        tensors.setdefault(beginning + leaf, stored)
    merged = replace(
        checkpoint,
        entries={**checkpoint.entries, entry: tensors},
        other_keys=tuple(
            key
            for key in checkpoint.other_keys
            if key not in head and not f"{name}.".startswith(f"{key}.")
        ),
    )
    for each in networks_of_table(merged, entry, tensors).identities:
        if identity.names.items() <= each.names.items() and head <= set(each.names.values()):
            source = f"the table {name}" if name else "the file itself"
            note = f"its head is taken from {source}, the only one whose matrix fits"
            return replace(each, notes=(*each.notes, note))
    return None
