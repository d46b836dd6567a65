"""Galleries: embedded pictures with escaped captions, and nothing else can be embedded."""

import base64
import re

import pytest
from PIL import Image

from reslearn.report import Gallery, Page, Picture, PictureGroup, Section, render_html, thumbnail

HOSTILE = "</script><img src=http://evil.example onerror=alert(1)>\"'`x`"


def test_a_gallery_embeds_its_pictures_and_escapes_its_texts() -> None:
    content = thumbnail(Image.new("RGBA", (400, 100), "red"))
    gallery = Gallery("Duplicates", [PictureGroup(HOSTILE, [Picture(content, HOSTILE)] * 2)])
    html = render_html(Page("Photos", sections=[Section("Pictures", items=[gallery])]))
    embedded = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    assert [base64.b64decode(text) for text in embedded] == [content, content]
    assert len(re.findall("<img", html)) == 2
    assert "evil.example onerror" in html and "<img src=http" not in html


def test_a_thumbnail_is_small_and_keeps_its_shape() -> None:
    content = thumbnail(Image.effect_noise((3000, 1500), 60), longer_px=100)
    assert len(content) < 10_000
    assert Picture(content).address.startswith("data:image/jpeg;base64,")


def test_only_jpeg_and_png_are_embedded() -> None:
    with pytest.raises(ValueError, match=r"^picture 'x': only JPEG and PNG"):
        Picture(b"<svg onload='alert(1)'>", "x")
