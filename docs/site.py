"""MkDocs hooks: pages of the repository's top level become pages of the site.

The repository's links work on its own pages; here they are turned into those of the site.
"""

import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files, config):
    """Adds the pages of the top level, whose links lead into docs/ or to each other."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        text = re.sub(r"\]\(docs/", "](", text)
        for other, target in PAGES.items():
            text = text.replace(f"]({other})", f"]({target})")
        files.append(File.generated(config, page, content=_without_sources(text)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of docs/ to the top level lead to its pages."""
    for name, target in PAGES.items():
        markdown = re.sub(rf"\]\(((?:\.\./)+){name}\)", _link(page, target), markdown)
    return _without_sources(markdown)


def _link(page, target):
    return f"]({'../' * page.file.src_uri.count('/')}{target})"


def _without_sources(text):
    """Leaves only the text of links to files that are no pages, such as a license or a module."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#]*)(?:#[^)]*)?\)", _page_or_text, text)


def _page_or_text(match):
    text, target = match.groups()
    is_page = not target or target.endswith((".md", "/")) or re.match(r"https?:", target)
    return match[0] if is_page else text
