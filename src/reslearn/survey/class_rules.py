"""Rules about classes and splits: missing classes, leaks, wrong labels, copies, balance."""

from __future__ import annotations

from collections.abc import Iterator

from reslearn.survey.facts import ALL, FolderFacts
from reslearn.survey.finding import Finding, copies_of, counted, has, listed, share

FEW_IMAGES = 20  # of a class in training
FEW_TEST_IMAGES = 10  # of a class in the test split
UNBALANCED, SLIGHTLY_UNBALANCED = 10.0, 3.0  # largest class divided by smallest
MANY_COPIES = 0.01  # share of the images


def missing_classes(facts: FolderFacts) -> Iterator[Finding]:
    """Yield the classes without images in a split, and those without any image."""
    totals = facts.class_counts()
    lost = [name for name, total in totals.items() if not total]
    for split, numbers in facts.counts.items():
        missing = [name for name, number in numbers.items() if not number and name not in lost]
        if not missing:
            continue
        reason = "cannot be learned" if split == "train" else "has no accuracy"
        yield Finding(
            severity="error",
            name="missing_class",
            count=len(missing),
            text=f"{counted(len(missing), 'class', 'classes')} without images in {split}: "
            f"{listed(missing, 20)}",
            action=f"Add images to {split}, because a class without images there {reason}",
        )
    if lost:
        yield Finding(
            severity="error",
            name="missing_class",
            count=len(lost),
            text=f"{counted(len(lost), 'class', 'classes')} without a readable image: "
            f"{listed(lost, 20)}",
            action="Replace their files",
        )


def leaks(facts: FolderFacts) -> Iterator[Finding]:
    """Yield the images of each split that have a copy in another split."""
    for leak in facts.copies.leaks:
        action = f"Remove the copies from {leak.other_split}, or move all copies to one split"
        if facts.is_drawn:
            action = "Remove all but one of each, or make the split folders yourself"
        if not leak.num_exact:
            action = "Look at the pairs: remove real copies, and ignore different pictures"
        elif leak.split == "test":
            action += ", because the test accuracy is too high otherwise"
        yield Finding(
            # Different drawings or scans may look alike, so near copies alone are no proof.
            severity="error" if leak.num_exact else "warning",
            name=f"leak_{leak.split}_{leak.other_split}",
            count=leak.num_copies,
            text=f"{counted(leak.num_copies, f'{leak.split} image')} of {leak.num_images:,} "
            f"({share(leak.num_copies, leak.num_images)}) {has(leak.num_copies)} "
            f"{copies_of(leak.num_exact, leak.num_near)} in {leak.other_split}",
            action=action,
            examples=_leaking_groups(facts, {leak.split, leak.other_split}),
        )


def _leaking_groups(facts: FolderFacts, splits: set[str]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of copies that have images in both splits."""
    groups = []
    for group in facts.copies.groups:
        if splits <= {str(facts.listing[row].split) for row in group.rows}:
            groups.append(group.rows)
    return tuple(groups)


def label_conflicts(facts: FolderFacts) -> Iterator[Finding]:
    """Yield the images that have a copy in another class."""
    copies = facts.copies
    number = copies.num_conflicts_exact + copies.num_conflicts_near
    if number:
        yield Finding(
            severity="error" if copies.num_conflicts_exact else "warning",
            name="label_conflict",
            count=number,
            text=f"{counted(number, 'image')} {has(number)} "
            f"{copies_of(copies.num_conflicts_exact, copies.num_conflicts_near)} in another class",
            action="Decide on one label for each of these pictures and remove the other files",
            examples=tuple(group.rows for group in copies.groups if group.num_classes > 1),
        )


def repeated_images(facts: FolderFacts) -> Iterator[Finding]:
    """Yield the exact and near copies."""
    copies = facts.copies
    kinds = (
        ("exact", copies.num_exact, "with the same content as another file"),
        ("near", copies.num_near, "with a near copy"),
    )
    groups = [group for group in copies.groups if group.num_classes == group.num_splits == 1]
    for kind, number, what in kinds:
        if not number:
            continue
        yield Finding(
            severity="warning" if number > MANY_COPIES * facts.num_images else "note",
            name=f"{kind}_copies",
            count=number,
            text=f"{counted(number, 'image')} ({share(number, facts.num_images)}) {what}",
            action="Keep one of each, because copies count several times in training and results",
            examples=tuple(group.rows for group in groups if group.is_exact == (kind == "exact")),
        )
    if not copies.search_is_complete:
        yield Finding(
            severity="note",
            name="search_limited",
            count=0,
            text="The search for near copies was limited, because very many pictures are alike",
            action="Remove the copies found, and inspect the folder again",
        )


def balance(facts: FolderFacts) -> Iterator[Finding]:
    """Yield classes that are much smaller than others, or small."""
    split = "train" if "train" in facts.counts else next(iter(facts.counts))
    numbers = {name: number for name, number in facts.counts[split].items() if number}
    if len(numbers) < 2:
        return
    largest = max(numbers, key=lambda name: numbers[name])
    smallest = min(numbers, key=lambda name: numbers[name])
    ratio = numbers[largest] / numbers[smallest]
    where = "" if split == ALL else f" in {split}"
    if ratio >= SLIGHTLY_UNBALANCED:
        yield Finding(
            severity="warning" if ratio >= UNBALANCED else "note",
            name="imbalance",
            count=round(ratio),
            text=f"Class {largest} has {ratio:.1f} times the images of class {smallest}{where} "
            f"({numbers[largest]:,} and {numbers[smallest]:,})",
            action="Read the recall of each class, not the accuracy alone",
        )
    few = [name for name, number in numbers.items() if number < FEW_IMAGES]
    if few:
        yield Finding(
            severity="warning",
            name="small_class",
            count=len(few),
            text=f"{counted(len(few), 'class', 'classes')} with fewer than {FEW_IMAGES} images"
            f"{where}: {listed(f'{name} ({numbers[name]})' for name in few)}",
            action="Collect more images, or merge such a class with a similar one",
        )


def size_of_test_classes(facts: FolderFacts) -> Iterator[Finding]:
    """Yield classes with very few test images."""
    numbers = facts.counts.get("test", {})
    few = [name for name, number in numbers.items() if 0 < number < FEW_TEST_IMAGES]
    if few:
        yield Finding(
            severity="note",
            name="small_test_class",
            count=len(few),
            text=f"{counted(len(few), 'class', 'classes')} with fewer than {FEW_TEST_IMAGES} test "
            f"images: {listed(f'{name} ({numbers[name]})' for name in few)}",
            action="Do not compare the accuracy of such classes: one image changes it by 10 points",
        )
