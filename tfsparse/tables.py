"""Tables of text: aligned for a terminal, or Markdown."""


def aligned(rows, left=1):
    """Returns rows of str as aligned columns, a str of lines.

    Args:
        rows: list of lists of str, all of one length.
        left: number of columns that are left-aligned, from the first; the others are right-aligned.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(header, rows):
    """Returns a Markdown table, a str of lines; cells are anything that `str` takes."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
