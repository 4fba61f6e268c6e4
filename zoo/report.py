"""The page of a report: one HTML file, legible in light and dark schemes."""

import base64
import html
import io

DPI = 200  # two pixels of a picture for each of a page

# Pictures keep a white ground in a dark scheme, as a print on a dark desk.
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0;
        --ground: #fff; --band: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9da7b3; --line: #3d444d; --ground: #0d1117; --band: #151b23 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--ink); background: var(--ground) }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
td, th { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
         vertical-align: top; font-variant-numeric: tabular-nums }
th { background: var(--band) }
td:first-child, th:first-child, .facts td { text-align: left; overflow-wrap: anywhere }
.facts td:first-child { white-space: nowrap; width: 30% }
figure { margin: 1rem 0 } figcaption, p { color: var(--faint); margin: .5rem 0 }
img { box-sizing: border-box; width: 100%; height: auto; padding: .75rem; background: #fff;
      border: 1px solid var(--line); border-radius: .5rem }
"""


def page(title, *sections):
    """Returns a self-contained HTML page of `sections`, as the functions below return them."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(sections)}</html>\n"
    )


def table(title, rows, note=""):
    """Returns a section: a table of `rows`, lists of str, the first of which is the header."""
    header, *body = rows
    lines = [_row("th", header), *(_row("td", row) for row in body)]
    return f"{_heading(title)}<div class=wide><table>{''.join(lines)}</table></div>{_note(note)}"


def facts(title, pairs, note=""):
    """Returns a section: a table of {name: value}, both anything that `str` takes."""
    lines = "".join(_row("td", pair) for pair in pairs.items())
    return f"{_heading(title)}<table class=facts>{lines}</table>{_note(note)}"


def bullets(title, lines):
    """Returns a section: a list of str."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"{_heading(title)}<ul>{items}</ul>"


def picture(figure, caption):
    """Returns a section: a Matplotlib figure, whose title is in it, and a caption."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{content}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _heading(title):
    return f"<h2>{html.escape(title)}</h2>"


def _note(text):
    return f"<p>{html.escape(text)}</p>" if text else ""


def _row(tag, cells):
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
