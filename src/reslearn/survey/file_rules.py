"""Rules about files: unreadable, left out, odd formats, long shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from reslearn.survey.examine import Flag
from reslearn.survey.facts import FolderFacts
from reslearn.survey.finding import Finding, Severity, counted, listed, share, singles, them

MANY_UNREADABLE = 0.01  # share of the files
TELLING_FORM_PCT = 15.0  # points above the most frequent class
MANY_CROPPED = 0.05  # share of the images
SMALL_PX = 32  # shorter side


def layout(facts: FolderFacts) -> Iterator[Finding]:
    """Yield why training refuses the folder."""
    if facts.layout_problem:
        yield Finding(
            severity="error",
            name="layout",
            count=facts.num_files,
            text=f"Training refuses this folder: {facts.layout_problem}",
            action="Correct this first",
        )


def unreadable_files(facts: FolderFacts) -> Iterator[Finding]:
    """Yield the number of files that cannot be read."""
    if not facts.num_unreadable:
        return
    count = facts.num_unreadable
    yield Finding(
        severity="error" if count >= MANY_UNREADABLE * facts.num_files else "warning",
        name="unreadable",
        count=count,
        text=f"{counted(count, 'file')} of {facts.num_files:,} cannot be read",
        action=f"Replace or remove {them(count)}, because training leaves {them(count)} out",
        examples=singles(facts.unreadable),
    )


def files_left_out(facts: FolderFacts) -> Iterator[Finding]:
    """Yield classes that lose most of their files, and all other files left out by suffix."""
    by_class: dict[str, Counter[str]] = {}
    for files in facts.listing.left_out:
        suffixes = by_class.setdefault(files.class_name, Counter())
        suffixes[files.suffix or "no suffix"] += files.count
    totals = facts.class_counts()
    hint = "Convert them to JPEG or PNG, or give them the suffix of a picture"
    for name, suffixes in by_class.items():
        number = suffixes.total()
        if name and number > totals.get(name, 0):
            readable = counted(totals.get(name, 0), "readable image")
            yield Finding(
                severity="error",
                name="class_left_out",
                count=number,
                text=f"Class {name} has {readable}, and {counted(number, 'file')} of it "
                f"{'is' if number == 1 else 'are'} left out because of the suffix: "
                f"{_suffixes(suffixes)}",
                action=hint,
            )
            continue
    remaining: Counter[str] = Counter()
    for name, suffixes in by_class.items():
        if not name or suffixes.total() <= totals.get(name, 0):
            remaining.update(suffixes)
    if remaining:
        from reslearn.data.walk import TEXT_SUFFIXES

        is_text = set(remaining) <= TEXT_SUFFIXES
        yield Finding(
            severity="note" if is_text else "warning",
            name="left_out",
            count=remaining.total(),
            text=f"{counted(remaining.total(), 'file')} left out because of the suffix: "
            f"{_suffixes(remaining)}",
            action="Ignore this if they are not pictures" if is_text else hint,
        )


def _suffixes(numbers: Counter[str]) -> str:
    return listed(f"{count:,} {suffix}" for suffix, count in numbers.most_common())


def pictures_outside(facts: FolderFacts) -> Iterator[Finding]:
    """Yield pictures, folders and links that belong to no class."""
    listing = facts.listing
    loose = sum(listing.loose.values())
    if loose and listing.layout != "csv":
        yield Finding(
            severity="warning",
            name="no_class",
            count=loose,
            text=f"{counted(loose, 'picture')} outside of class folders",
            action="Move them into the folder of their class, because they have no label",
        )
    if listing.unused_folders:
        number = len(listing.unused_folders)
        yield Finding(
            severity="warning",
            name="unused_folder",
            count=number,
            text=f"{counted(number, 'folder')} beside the splits: {listed(listing.unused_folders)}",
            action="Move their pictures into train, validation or test if they are needed",
        )
    if listing.link_circles:
        number = len(listing.link_circles)
        yield Finding(
            severity="note",
            name="link_circle",
            count=number,
            text=f"{counted(number, 'link')} to a folder that was already listed: "
            f"{listed(str(path) for path in listing.link_circles)}",
            action="Remove it, although reading does not follow it",
        )


class _OddProperty(NamedTuple):
    severity: Severity
    verbs: tuple[str, str]  # for one image, and for several
    property: str
    action: str


_HAS, _IS, _SHOWS = ("has", "have"), ("is", "are"), ("shows", "show")
_ODD: dict[Flag, _OddProperty] = {
    Flag.FLAT: _OddProperty(
        "warning",
        _SHOWS,
        "a single color",
        "Remove such images, because nothing can be learned from them",
    ),
    Flag.ANIMATED: _OddProperty(
        "warning",
        _HAS,
        "several frames",
        "Reading takes the first frame; save the one that shows the class",
    ),
    Flag.TRANSPARENT: _OddProperty(
        "note",
        _HAS,
        "transparent pixels",
        "Reading puts them on white ground; check that white suits them",
    ),
    Flag.SIXTEEN_BIT: _OddProperty(
        "note",
        _HAS,
        "more than 8 bits per channel",
        "Reading reduces them to 8 bits, which is enough for most photos",
    ),
    Flag.CMYK: _OddProperty(
        "note", _HAS, "CMYK colors", "Reading converts them to RGB without a profile"
    ),
    Flag.ROTATED: _OddProperty(
        "note",
        _IS,
        "stored rotated (EXIF)",
        "Reading turns such images upright; check that other tools do the same",
    ),
    Flag.WRONG_SUFFIX: _OddProperty(
        "note",
        _HAS,
        "the suffix of another format",
        "Reading recognizes the content; rename such files for other tools",
    ),
}


def odd_files(facts: FolderFacts) -> Iterator[Finding]:
    """Yield the images with each odd property of their file."""
    for flag, (severity, (singular, plural), property_text, action) in _ODD.items():
        if flag in facts.odd:
            odd = facts.odd[flag]
            verb = singular if odd.count == 1 else plural
            yield Finding(
                severity=severity,
                name=str(flag.name).lower(),
                count=odd.count,
                text=f"{counted(odd.count, 'image')} {verb} {property_text}",
                action=action,
                examples=singles(odd.rows),
            )


def odd_shapes(facts: FolderFacts) -> Iterator[Finding]:
    """Yield long images and very small ones."""
    number = facts.cropped.count
    if number > MANY_CROPPED * facts.num_images:
        yield Finding(
            severity="warning",
            name="long_images",
            count=number,
            text=f"A center crop removes more than a third of {counted(number, 'image')} "
            f"({share(number, facts.num_images)})",
            action="Check that the center shows the class, or crop these images yourself",
            examples=singles(facts.cropped.rows[:number]),
        )
    shorter = facts.sizes.get("shorter side")
    if shorter is not None and shorter.minimum < SMALL_PX <= shorter.median:
        yield Finding(
            severity="note",
            name="small_images",
            count=1,
            text=f"The smallest image has a side of {shorter.minimum} pixels, the median is "
            f"{shorter.median:,}",
            action="Look at the smallest images: they may be icons or thumbnails",
            examples=((facts.smallest,),),
        )


def telling_forms(facts: FolderFacts) -> Iterator[Finding]:
    """Yield properties of files that reveal the class."""
    for form in facts.forms:
        if form.accuracy_pct >= form.majority_pct + TELLING_FORM_PCT:
            yield Finding(
                severity="warning",
                name="form_tells_class",
                count=facts.num_images,
                text=f"The {form.name} alone predicts the class of {form.accuracy_pct:.0f} % of "
                f"the images (the largest class has {form.majority_pct:.0f} %)",
                action=f"Save all classes alike: a network may learn the {form.name} instead",
            )
