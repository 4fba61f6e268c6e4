"""MkDocs hooks: pages of the repository's top level, and the notebook, become pages of the site.

The repository's links work on its own pages; here they are turned into those of the site.
"""

import base64
import json
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/quickstart.ipynb": "notebook.md",
}


def on_files(files, config):
    """Adds the pages of the top level, whose links lead into docs/ or to each other."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".ipynb"):
            text, pictures = _markdown(json.loads(text))
            for picture, content in pictures.items():
                files.append(File.generated(config, picture, content=content))
        text = re.sub(r"\]\(docs/", "](", text)
        for other, target in PAGES.items():
            text = re.sub(rf"\]\((\.\./)*{other}\)", f"]({target})", text)
        files.append(File.generated(config, page, content=_without_sources(text)))
    return files


def _markdown(notebook):
    """Returns a notebook as Markdown, and {file name: bytes} of its pictures."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        text = "".join("".join(each.get("text", [])) for each in cell.get("outputs", []))
        parts += [f"```text\n{text}```"] if text else []
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                name = f"notebook_{len(pictures)}.png"
                pictures[name] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![A plot of the code above]({name})")
    return "\n\n".join(parts), pictures


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
