"""Takes the picture of the page of models with which the documentation opens.

    python -m studies screenshot

Opens what `tfsparse models --html` writes in a headless Chromium, as it is at first. Needs the
extra `tests`, and Chromium or Chrome.
"""

import pathlib
import shutil
import tempfile

from absl import flags

from tfsparse import optional
from tfsparse.errors import UsageError
from tfsparse.files import replacing, write_bytes

SIZE = {"width": 1200, "height": 940}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("output", "docs/models.png", "The picture to write.")


def main():
    optional.require("A screenshot", playwright="playwright")
    from playwright.sync_api import sync_playwright

    import zoo
    from studies.zoo_table import is_packaged
    from zoo.models_page import page

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = pathlib.Path(folder, "models.html")
        write_bytes(path, page([card for card in zoo.find() if is_packaged(card["name"])]))
        browser = launch(playwright)
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        tab.goto(path.as_uri())
        wait(tab)
        with replacing(FLAGS.output) as partial:
            partial.write_bytes(tab.screenshot())
        browser.close()


def launch(playwright):
    """Returns a headless browser.

    Raises:
        UsageError: if there is none.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise UsageError("There is no Chromium or Chrome. Install one: apt-get install chromium")
    # As root, it cannot enter its sandbox. The pages are our own.
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


def wait(tab):
    """Waits until a page of models is drawn."""
    tab.wait_for_selector("#pictures figure")
    tab.wait_for_selector("#plot svg .mark-symbol path")
