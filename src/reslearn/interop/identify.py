"""Identify a checkpoint: the project it comes from (dialect), and the network (spec) it belongs to.

A spec is inferred from names and shapes alone, and then verified. The network is built on the
meta device, and every tensor in the file must have the shape of the network's tensor. Names and
shapes cannot show some switches, such as the convolution that strides or the position of option
A's zeros. Their values come from the dialect, and `notes` say so.

A file may hold several tables, and a table several networks. All are identified. The network with
most tensors is chosen, or the first of equal ones; averages come last.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from reslearn.interop.averages import separate_average
from reslearn.interop.identity import FurtherNetwork, Identity
from reslearn.interop.separate_head import with_separate_head
from reslearn.interop.stated import notes_on_classes, refuse_stated_functions, stated_switches
from reslearn.interop.stored import (
    Checkpoint,
    StoredTensor,
    WeightsError,
    abbreviate,
    is_average,
)
from reslearn.interop.table_layers import may_hold_network
from reslearn.interop.table_networks import TableNetworks, networks_of_table

_MAX_TABLES = 32
_NUM_LISTED = 8
_TEACHER = re.compile(r"(?:^|[._:])teacher(?:[._:]|$)")
_SHARD = re.compile(r"-(\d{1,9})-of-(\d{1,9})\.")
_STUDENT = re.compile(r"(?:^|[._:])student(?:[._:]|$)")


def identify_checkpoint(checkpoint: Checkpoint, *, entry: str | None = None) -> Identity:
    """Identify the networks of a checkpoint, and choose one.

    Args:
        entry: A table of the file ("state_dict_ema"), the beginning of names in it
            ("state_dict:module.encoder_q."), or such a beginning alone. By default the network with
            most tensors, averages last.

    Raises:
        WeightsError: If no network of the catalog is there. The message says what is nearest, and
            the difference.
    """
    refuse_stated_functions(checkpoint)
    names, beginning = _requested(checkpoint, entry)
    by_table = [_networks(checkpoint, name, beginning) for name in names]
    results = _with_separate_averages(checkpoint, names, by_table)
    identities: list[Identity] = []
    entries: list[str] = []
    for result in results:
        identities += result.identities
        entries += [_entry_of(each, result.identities) for each in result.identities]
    if not identities:
        raise WeightsError(_refusal(checkpoint, results))
    chosen, note = _choose(identities, entries)
    further = tuple(
        FurtherNetwork(
            entry=each_entry,
            name=str(each.spec["name"]),
            is_average=is_average(each_entry) and each.spec == chosen.spec,
        )
        for each, each_entry in zip(identities, entries, strict=True)
        if each is not chosen
    )
    chosen = with_separate_head(chosen)
    unread = _unread_averages(checkpoint, identities) if entry is None else ()
    chosen = replace(
        chosen,
        further=further,
        unread_averages=unread,
        notes=(
            *chosen.notes,
            *note,
            *(
                f"{name} is named as an average, and holds no network, or only parameters that do "
                "not fit another one, so --entry does not take it"
                for name in unread
            ),
            *notes_on_classes(checkpoint),
        ),
    )
    return _with_stated_switches(chosen)


def _with_separate_averages(
    checkpoint: Checkpoint, names: Sequence[str], results: Sequence[TableNetworks]
) -> Sequence[TableNetworks]:
    """Complete averages of parameters with the statistics of a network in another table."""
    if not any(map(_may_average, names, results)):
        return results
    all_results = results
    if not any(result.identities for result in results):
        tables = [name for name in _promising_tables(checkpoint) if not is_average(name)]
        all_results = [_networks(checkpoint, name, "") for name in tables]
    networks = [each for result in all_results for each in result.identities]
    networks = [each for each in networks if not is_average(each.entry)]
    networks.sort(key=lambda identity: -len(identity.names))
    completed = []
    for name, result in zip(names, results, strict=True):
        if networks and _may_average(name, result):
            average = separate_average(name, checkpoint.entries[name], networks)
            reason = f"{result.reason}; and it does not fit the parameters of another table"
            result = replace(result, reason=reason)
            if average is not None:
                result = TableNetworks(identities=(average,))
        completed.append(result)
    return completed


def _may_average(name: str, result: TableNetworks) -> bool:
    return is_average(name) and not result.identities


def _unread_averages(checkpoint: Checkpoint, identities: Sequence[Identity]) -> tuple[str, ...]:
    """Return tables without a network whose names are those of averages."""
    read = {id(checkpoint.entries[identity.entry]) for identity in identities}
    return tuple(name for name in checkpoint.averages if id(checkpoint.entries[name]) not in read)


def _with_stated_switches(identity: Identity) -> Identity:
    """Return the identity with the switches that a file beside the weights states."""
    stated = stated_switches(identity.checkpoint)
    switches = {key: stated[key] for key in identity.undetermined if key in stated}
    if not switches:
        return identity
    notes = [note for note in identity.notes if "stride in the 1x1" not in note]
    notes += [f"config.json states {key} {value!r}" for key, value in switches.items()]
    identity = identity.with_switches(**switches)
    return replace(identity, notes=tuple(notes), stated_switches=tuple(switches))


def _choose(
    identities: Sequence[Identity], entries: Sequence[str]
) -> tuple[Identity, tuple[str, ...]]:
    """Return the network with most tensors, averages last, and a note if it is another.

    A teacher of the same shapes as its student is an average of it. Self-supervised methods, such
    as DINO, evaluate the teacher.
    """
    ranks = [
        (is_average(entry), -len(identity.names))
        for identity, entry in zip(identities, entries, strict=True)
    ]
    best = min(range(len(ranks)), key=ranks.__getitem__)
    if _STUDENT.search(entries[best]):
        for identity, entry in zip(identities, entries, strict=True):
            if _TEACHER.search(entry) and _are_alike(identity, identities[best]):
                note = (
                    "the teacher is taken, an average of the student; "
                    f"--entry {entries[best]} takes the student"
                )
                return identity, (note,)
    return identities[best], ()


def _are_alike(identity: Identity, reference: Identity) -> bool:
    """Return whether one network may average the weights of a reference."""
    return (identity.spec, identity.num_classes) == (reference.spec, reference.num_classes)


def _entry_of(identity: Identity, in_table: Sequence[Identity]) -> str:
    """Return the value of `--entry` that takes a network."""
    if len(in_table) == 1 and identity.entry:
        return identity.entry
    return f"{identity.entry}:{identity.prefix}"


def _requested(checkpoint: Checkpoint, entry: str | None) -> tuple[list[str], str]:
    """Return the tables that `entry` asks for, and the beginning of names in them.

    Raises:
        WeightsError: If the file has no such table, and no such names.
    """
    if entry is None:
        return list(_promising_tables(checkpoint)), ""
    if entry in checkpoint.entries:
        return [entry], ""
    for separator in re.finditer(":", entry):
        table, beginning = entry[: separator.start()], entry[separator.end() :]
        if table in checkpoint.entries:
            _check_beginning(checkpoint, table, beginning)
            return [table], beginning
    tables = [
        name
        for name, tensors in checkpoint.entries.items()
        if entry and any(tensor_name.startswith(entry) for tensor_name in tensors)
    ]
    if not tables:
        raise WeightsError(
            f"{checkpoint.path} has no entry {entry!r}; "
            f"its entries are {abbreviate([*map(repr, checkpoint.entries)], _NUM_LISTED)}, and the "
            "beginning of names may follow, as in state_dict:module.encoder_q."
        )
    return tables[:_MAX_TABLES], entry


def _check_beginning(checkpoint: Checkpoint, table: str, beginning: str) -> None:
    """Raise WeightsError if no name of a table begins, or ends, as the user asked for."""
    names = checkpoint.entries[table]
    if not any(name.startswith(beginning) or name.endswith(beginning) for name in names):
        beginnings = dict.fromkeys(name.rpartition(".")[0].partition(".")[0] for name in names)
        raise WeightsError(
            f"{checkpoint.path}: no name in its entry {table!r} begins with {beginning!r}; names "
            f"begin with {abbreviate([text + '.' for text in beginnings if text], _NUM_LISTED)}"
        )


def _promising_tables(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the tables that have convolutions, each once; if none has, the usual table."""
    tables: dict[int, str] = {}
    for name, tensors in checkpoint.entries.items():
        if may_hold_network(tensors):
            tables.setdefault(id(tensors), name)
    yield from list(tables.values())[:_MAX_TABLES] or [checkpoint.default_entry()]


def _networks(checkpoint: Checkpoint, entry: str, beginning: str) -> TableNetworks:
    """Return the networks of a table, or those whose names begin as the user asked for."""
    tensors = checkpoint.entries[entry]
    result = networks_of_table(checkpoint, entry, tensors)
    if not beginning:
        return result
    matching = tuple(each for each in result.identities if each.prefix.startswith(beginning))
    if matching:
        return replace(result, identities=matching)
    return networks_of_table(checkpoint, entry, _beginning_with(tensors, beginning))


def _beginning_with(tensors: Mapping[str, StoredTensor], beginning: str) -> dict[str, StoredTensor]:
    return {name: stored for name, stored in tensors.items() if name.startswith(beginning)}


def _refusal(checkpoint: Checkpoint, results: Sequence[TableNetworks]) -> str:
    """Return one line: what is nearest in the file, and why it is no network."""
    reason = max(results, key=lambda result: result.certainty).reason
    if checkpoint.container == "ONNX":
        reason += (
            "; exporters fold batch norm into convolutions unless they export for training: "
            "use the checkpoint that the file was exported from"
        )
    if shard := _SHARD.search(checkpoint.path.name):
        reason += (
            f"; it is part {int(shard[1])} of {int(shard[2])}: name the folder, or the index file "
            "in it"
        )
    return f"{checkpoint.path} holds no network of the catalog: {reason}"
