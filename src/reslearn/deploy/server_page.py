"""The page at /: drop a photo, see its classes. One file without anything from elsewhere.

The Content-Security-Policy names the script and the style of the page by their digests, so a
browser runs nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

PAGE = resources.files("reslearn.deploy").joinpath("server_page.html").read_text(encoding="utf-8")


def _digest(tag: str) -> str:
    """Return the source of the content of a tag, such as 'sha256-...'."""
    match = re.search(f"<{tag}>(.*?)</{tag}>", PAGE, flags=re.DOTALL)
    assert match is not None, f"the page has no <{tag}>"
    digest = base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()
    return f"'sha256-{digest}'"


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_digest('script')}",
        f"style-src {_digest('style')}",
        "img-src blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
