"""MkDocs hook: bring files that live outside docs/ into the site.

The Markdown files of the repository root become pages. Pictures under results/ are copied when a
page shows them. Links to any other file of the repository become plain text, since the site does
not hold them.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ROOT_PAGES = ("LOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository root and every picture that a page shows."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for page in list(files.documentation_pages()):
        for _, _, target in LINK.findall(page.content_string):
            path = _repository_path(page.src_uri, target)
            is_picture = path.startswith("results/") and path.endswith(".png")
            if is_picture and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the pages of the site, or turn them into text."""

    def rewrite(match: re.Match[str]) -> str:
        bang, text, target = match.groups()
        if target.startswith(("http:", "https:", "#", "mailto:")):
            return match.group(0)
        path, _, anchor = _repository_path(page.file.src_uri, target).partition("#")
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return text
        return f"{bang}[{text}]({uri}{'#' + anchor if anchor else ''})"

    return LINK.sub(rewrite, markdown)


def _repository_path(page_uri: str, target: str) -> str:
    """Return the target of a link as a path from the root of the repository."""
    folder = ROOT if page_uri in ROOT_PAGES else ROOT / "docs"
    return Path(folder, target).resolve().relative_to(ROOT).as_posix()
