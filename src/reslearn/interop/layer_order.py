"""Whether names contradict the order in which a network was read, or cannot show it.

Batch norms of a block, and blocks of a stage, have equal shapes. Their order decides what a network
computes. Tables that are sorted by name show it only by numbers or single letters.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

from reslearn.interop.table_layers import LayerPath, natural_key, path_of

_BLOCK = re.compile(r"(stage\d+)\.(\d+)\.body\.conv1\.weight")
_LONGEST_BODY = 3


def doubt_about_order(names: Mapping[str, str], *, is_by_name: bool) -> str | None:
    """Return why the order of layers is in doubt, or None.

    Args:
        names: The native name of each tensor, to its name in the file, in the order that was read.
        is_by_name: Whether the tensors are sorted by name. Else a program wrote them in its order.
    """
    for native_name in names:
        if (gap := _gap_before_norm(native_name, names)) is not None:
            return gap
    stages: dict[str, list[str]] = {}
    for native_name in names:
        if match := _BLOCK.fullmatch(native_name):
            stages.setdefault(match[1], []).append(native_name)
    pairs = [pair for blocks in stages.values() for pair in pairwise(blocks)]
    for first_convolution in [name for blocks in stages.values() for name in blocks]:
        pairs += _norm_pairs(first_convolution.removesuffix(".conv1.weight"), names)
    for first, second in pairs:
        path, following = path_of(names[first]), path_of(names[second])
        reason = _doubt(path, following, is_by_name=is_by_name)
        if reason is not None:
            return f"{names[first]} and {names[second]} {reason}"
    return None


def _gap_before_norm(native_name: str, names: Mapping[str, str]) -> str | None:
    """Return why a convolution and its batch norm are not neighbors in a sequence, or None."""
    if not native_name.endswith(".running_mean"):
        return None
    parent, _, norm = native_name.removesuffix(".running_mean").rpartition(".")
    convolution = f"{parent}.{norm.replace('bn', 'conv')}.weight"
    if convolution not in names:
        return None
    *home, position = path_of(names[convolution]) or ("",)
    *norm_home, norm_position = path_of(names[native_name]) or ("",)
    if home != norm_home or not (position.isdigit() and norm_position.isdigit()):
        return None
    if int(norm_position) - int(position) == 1:
        return None
    return (
        f"{names[convolution]} and {names[native_name]} have something without weights between "
        "them, which changes what the batch norm sees"
    )


def _norm_pairs(body: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return neighboring batch norms of a block, unless each lies beside its own convolution."""
    norms = [f"{body}.bn{number}.running_mean" for number in range(1, _LONGEST_BODY + 1)]
    norms = [name for name in norms if name in names]
    parents = [path_of(names[name])[:-1] for name in norms]
    convolutions = [f"{body}.conv{number}.weight" for number in range(1, len(norms) + 1)]
    homes = [path_of(names[name])[:-1] for name in convolutions]
    if parents == homes and len(set(homes)) == len(homes):
        return []
    return list(pairwise(norms))


def _doubt(path: LayerPath, following: LayerPath, *, is_by_name: bool) -> str | None:
    pairs = zip(path, following, strict=False)
    part, next_part = next(
        ((first, second) for first, second in pairs if first != second), ("", "")
    )
    if re.sub(r"\d+", "", part) == re.sub(r"\d+", "", next_part):
        is_reversed = natural_key(part) > natural_key(next_part)
        return "have numbers against the order of the file" if is_reversed else None
    if is_by_name and not _differ_by_a_letter(part, next_part):
        return (
            "have equal shapes, and names that do not show which comes first; the file is sorted "
            "by name, so save the state dict with torch.save, or number its layers"
        )
    return None


def _differ_by_a_letter(part: str, next_part: str) -> bool:
    """Return whether single letters count the parts, as in conv_a and conv_b."""
    beginning, letter = part[:-1], part[-1:]
    if beginning[-1:].isalpha() or not letter.isalpha():
        return False
    return next_part[:-1] == beginning and letter < next_part[-1:]
