"""Small pictures in groups: duplicates side by side, examples of a class, confident mistakes.

The pictures are embedded as data addresses, so the page stays one file. A page stays readable if
its galleries hold a few hundred pictures of `THUMBNAIL_PX`: about 5 kB each, 7 kB as text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_PX = 120
"""Longer side of a thumbnail, in pixels of the file."""
_MEDIA_TYPES = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One small picture.

    Args:
        content: A JPEG or PNG file.
        caption: Text below the picture, such as its file name.
        below: A second JPEG or PNG file of the same picture, such as its heat map.

    Raises:
        ValueError: If the content is neither JPEG nor PNG.
    """

    content: bytes
    caption: str = ""
    below: bytes | None = None

    def __post_init__(self) -> None:
        for content in (self.content, self.below):
            if content is not None and content[:2] not in _MEDIA_TYPES:
                raise ValueError(f"picture {self.caption!r}: only JPEG and PNG can be embedded")

    @property
    def address(self) -> str:
        """The picture as a data address."""
        return _address(self.content)

    @property
    def addresses(self) -> list[str]:
        """The picture, and the one below it if there is one, as data addresses."""
        contents = [self.content] if self.below is None else [self.content, self.below]
        return [_address(content) for content in contents]

    @property
    def is_tiny(self) -> bool:
        """Whether the picture is a PNG, whose few pixels are enlarged without smoothing."""
        return _MEDIA_TYPES[self.content[:2]] == "image/png"


@dataclass(frozen=True, slots=True)
class PictureGroup:
    """Pictures that belong together, in one row that wraps on a narrow screen."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Groups of pictures below one caption."""

    caption: str
    groups: Sequence[PictureGroup]


def thumbnail(image: Image.Image, longer_px: int = THUMBNAIL_PX) -> bytes:
    """Return a picture as a small JPEG file whose longer side has at most `longer_px` pixels."""
    small = image.convert("RGB")
    small.thumbnail((longer_px, longer_px))
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=75, optimize=True)
    return buffer.getvalue()


def _address(content: bytes) -> str:
    media_type = _MEDIA_TYPES[content[:2]]
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def gallery_entry(gallery: Gallery) -> dict[str, Any]:
    """Return the values that the template prints. Pairs stand beside each other."""
    has_pairs = all(len(group.pictures) <= 2 for group in gallery.groups)
    return {
        "kind": "gallery",
        "caption": gallery.caption,
        "groups": gallery.groups,
        "has_pairs": has_pairs and len(gallery.groups) > 1,
    }
