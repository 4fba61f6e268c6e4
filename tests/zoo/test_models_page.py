"""The page of models, in a browser: what it shows is what Python says."""

import json
import re
import urllib.parse

import numpy as np
import pytest

import zoo
from studies.screenshot import launch, wait
from tfsparse import UsageError, optional
from zoo import adversarial_examples, models_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.slow

CIFAR10 = [card for card in zoo.find() if card["dataset"] == "cifar10"]
BEST = max(CIFAR10, key=lambda card: card["results"]["autoattack"]["accuracy"])["name"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    pytest.importorskip("vl_convert")
    path = tmp_path_factory.mktemp("page") / "models.html"
    path.write_text(models_page.page(zoo.find()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except UsageError as error:
            pytest.skip(str(error))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, path):
    """The page, and what it wrote to the console and asked for besides itself."""
    page, noise = browser.new_page(viewport={"width": 1200, "height": 900}), []
    page.set_default_timeout(10_000)
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url))
    page.goto(path.as_uri())
    return page, noise


@pytest.fixture
def page(opened, path):
    """The page as it is at first; each test ends without an error or a request."""
    page, noise = opened
    page.reload()
    wait(page)
    yield page
    loaded = [each for each in noise if not each.startswith("data:") and each != path.as_uri()]
    assert loaded == []


def names(page):
    return page.locator("#rows tr td:first-child").all_inner_texts()


def marks(page, kind):
    """Returns the parts of the plot of a kind: "symbol" or "line"; those of the legend are not."""
    page.wait_for_timeout(100)  # it is drawn in the background
    return page.locator(f"#plot svg .mark-{kind}.role-mark path")


def test_filters_are_those_of_find(page):
    assert sorted(names(page)) == zoo.list_models(dataset="cifar10")
    page.select_option("#runtime", "tflm")  # what `zoo.find` judges
    page.select_option("#robust", "yes")
    assert sorted(names(page)) == zoo.list_models(dataset="cifar10", robust=True)
    page.select_option("#board", "BBC micro:bit V2")
    conditions = {"dataset": "cifar10", "robust": True, "board": "micro:bit"}
    assert sorted(names(page)) == zoo.list_models(**conditions)
    page.fill("#flash", "60")
    page.fill("#ram", "50")
    few = zoo.list_models(**conditions, max_flash=60_000, max_ram=50_000)
    assert sorted(names(page)) == few != []
    assert page.inner_text("#count") == f"{len(few)} of {len(zoo.list_models())} models"
    assert page.inner_text("#name") in few  # the one that was described is filtered out
    page.fill("#flash", "1")
    assert names(page) == []
    assert "No model" in page.inner_text("#plot")
    page.click("button[type=reset]")
    page.wait_for_selector("#plot svg")
    assert len(names(page)) == len(CIFAR10)


def test_the_table_sorts(page):
    order = {card["name"]: card["c_package"]["instructions"] for card in CIFAR10}
    assert names(page)[0] == BEST
    page.click("th[data-key=instructions] button")
    assert names(page) == sorted(order, key=lambda name: (order[name], name))
    assert page.get_attribute("th[data-key=instructions]", "aria-sort") == "ascending"
    page.click("th[data-key=instructions] button")
    assert [order[name] for name in names(page)] == sorted(order.values(), reverse=True)
    page.click("th[data-key=name] button")
    assert names(page) == sorted(order)


def test_axes_and_pareto_lines(page):
    page.select_option("#y", "autoattack")
    page.select_option("#x", "macs")
    page.select_option("#robust", "yes")
    robust = [card for card in CIFAR10 if card["recipe"]["loss"] == "hybrid"]
    points = marks(page, "symbol")
    assert points.count() == 2 * len(robust)  # each with the ring of the chosen one
    assert {"MACs, M", "AutoAttack accuracy, %"} <= set(page.inner_text("#plot").splitlines())
    places = [(c["nonzero_macs"], -c["results"]["autoattack"]["accuracy"]) for c in robust]
    best = {p for p in places if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in places)}
    corners = re.findall(r"[ML]", marks(page, "line").get_attribute("d"))
    assert len(corners) == 2 * len(best) - 1  # a step between each two


def test_choosing_a_model_in_the_table_and_in_the_plot(page):
    name = "resnet8_dnr10_cifar10"
    assert page.inner_text("#name") == BEST
    page.get_by_role("button", name=f"robust {name}", exact=True).press("Enter")
    assert page.evaluate("document.activeElement.textContent") == name
    assert page.inner_text("#name") == name
    assert f'zoo.load("{name}")' in page.inner_text("#code")
    assert page.text_content("#card") == str(zoo.card(name))
    link = urllib.parse.urlparse(page.get_attribute("#file", "href"))
    assert urllib.parse.unquote(link.path) == str(zoo.load_tflite(name))
    assert "BBC micro:bit V2" in page.inner_text("#boards")
    point = marks(page, "symbol").last
    point.click()
    assert page.inner_text("#name") == point.get_attribute("aria-label") != name


@pytest.mark.parametrize("name", [BEST, "resnet8_dnr10_fashion_mnist_small"])
def test_the_slider_shows_what_the_file_was_given(page, name):
    dataset, note = (zoo.card(name)[key] for key in ("dataset", "note"))
    page.select_option("#dataset", label=f"{dataset} ({note})" if note else dataset)
    examples = adversarial_examples.read(name)
    for index, eps in enumerate(adversarial_examples.EPS):
        page.locator("#eps").fill(str(index))
        page.wait_for_function(f"document.getElementById('bound').value == '{eps}/255'")
        classes = examples.outputs[index].argmax(axis=1)
        right = (classes == examples.labels).sum()
        assert page.inner_text("#right") == f"{right} of 8 right"
        assert page.locator("#pictures .right").count() == right
    shown = page.evaluate(
        "[...document.querySelectorAll('canvas')].map((canvas) => [...canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data])"
    )
    given = examples.attacked(index)
    found = np.reshape(shown, (*given.shape[:3], 4))[..., :3]
    np.testing.assert_array_equal(found, np.broadcast_to(given, found.shape))
    class_names = zoo.card(name)["class_names"]
    said = page.locator("#pictures .prediction").all_inner_texts()
    assert all(class_names[c] in text for c, text in zip(classes, said, strict=True))
    said = page.locator("#pictures .class").all_inner_texts()
    assert said == [class_names[label] for label in examples.labels]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser, path, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    wait(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.close()
    assert width == 390
    assert (np.mean(json.loads(background.replace("rgb(", "[").replace(")", "]"))) < 128) == (
        scheme == "dark"
    )


def test_without_vega_it_says_what_to_install(monkeypatch, tfsparse, tmp_path):
    monkeypatch.setattr(optional, "are_installed", lambda *modules: "vl_convert" not in modules)
    with pytest.raises(UsageError, match="Run: pip install vl-convert-python"):
        models_page.page(zoo.find())
    status, _, error = tfsparse("models", f"--html={tmp_path / 'models.html'}")
    assert status == 1
    assert "pip install vl-convert-python" in error
    assert list(tmp_path.iterdir()) == []


def test_no_text_of_a_card_ends_its_element(monkeypatch):
    vl_convert = pytest.importorskip("vl_convert")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: "'</script>'")
    card = zoo.card(BEST)
    page = models_page.page([card | {"note": "</script><script>alert(1)</script>"}])
    assert page.count("</script>") == 3
    (data,) = re.findall(r'id="data">(.*?)</script>', page)
    assert list(json.loads(data)["datasets"]) == ["cifar10 (</script><script>alert(1)</script>)"]
