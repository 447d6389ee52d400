"""The report of an audit in a real browser: does it work, how fast is it, and what does it look like?

Makes reports of made-up audits: 50,000 examples with pictures, 100 classes without, two classes, and a folder of images
with a tenth of wrong labels. Opens each in Chromium, filters, decides by keyboard and mouse, exports, reloads and
imports; stops at the first thing that is not as it should be, prints seconds, and saves screenshots. It needs
Playwright and a Chromium:

pip install playwright
python benchmarks/report_in_browser.py --chromium /usr/bin/chromium --images photos --out shots
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from reweight_audit.html import thumbnails_of, write_report
from reweight_audit.records import Audit, Share, Signal
from reweight_core import ImageFiles, Split

WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 400, "height": 800}


def made_up(names: Sequence[str], classes: Sequence[str], given: np.ndarray, true: np.ndarray, known: bool) -> Audit:
    """Make an audit that finds most of what is wrong, with some mistakes."""
    rng = np.random.default_rng(0)
    count, wrong = len(given), given != true
    score = rng.normal(size=count) + 3.5 * wrong
    probability = 1 / (1 + np.exp(-2 * (score - 2.2)))
    suggested = np.where(wrong, true, np.where(probability > 0.5, (given + 1) % len(classes), given))
    matrix = np.zeros((len(classes), len(classes)))
    np.add.at(matrix, (suggested, given), probability)
    np.add.at(matrix, (given, given), 1 - probability)

    def share(mask: np.ndarray) -> Share:
        value, error = probability[mask].mean(), 0.5 / np.sqrt(mask.sum())
        return Share(float(value), float(max(0, value - error)), float(min(1, value + error)))

    figures = {"auroc": 0.981, "precision_1": 0.994, "precision_5": 0.967, "precision_wrong": 0.893}
    return Audit(
        run="runs/gdw-photos-3",
        fingerprint=f"made up {count} {len(classes)}",
        classes=list(classes),
        ids=np.arange(count),
        names=list(names),
        given=given,
        suggested=suggested,
        probability=probability,
        calibrated="400 planted examples, every second one with a wrong label" if known else None,
        signals=[
            Signal(
                "margin",
                "how far the logit of its label stood below the largest other one, mean over the epochs; high: wrong",
                score,
                0.97,
                figures,
            ),
            Signal(
                "weight",
                "its learned weight with its sign turned: low weight, high signal: wrong",
                -score,
                0.93,
                {**figures, "auroc": 0.912},
            ),
            Signal(
                "loss",
                "its training loss; high: wrong",
                score + rng.normal(size=count),
                0.9,
                {**figures, "auroc": 0.874},
            ),
        ],
        matrix=matrix,
        wrong=[share(given == c) for c in range(len(classes))],
        wrong_of_all=share(np.ones(count, bool)),
        planted=rng.random(count) < 0.005,
        true=true if known else np.full(count, -1),
        weights=np.clip(1.2 - 0.3 * score + 0.1 * rng.normal(size=count), 0, None),
    )


def make_run(folder: Path) -> Path:
    """Make the files of a run that a report reads."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "data": "digits",
        "method": "erm",
        "loss": "cross-entropy",
        "with": [],
        "model": "mlp",
        "epochs": 40,
        "lr": 0.1,
    }
    (folder / "config.json").write_text(json.dumps({"options": config}))
    summary = {"epochs": 40, "val_accuracy": 0.873, "noise_auroc": 0.948, "seconds": 812.4, "health": []}
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [
        {
            "stage": "train" if k < 30 else "fine-tune",
            "train_loss": 2.3 * 0.93**k + 0.4,
            "train_accuracy": 0.8 - 0.7 * 0.9**k,
            "val_accuracy": 0.88 - 0.75 * 0.85**k,
            "test_accuracy": None,
        }
        for k in range(40)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def large(folder: Path) -> Path:
    """50,000 examples with pictures that do not compress."""
    rng = np.random.default_rng(1)
    count, classes = 50_000, [f"class {c}" for c in range(10)]
    true = rng.integers(0, 10, count)
    given = np.where(rng.random(count) < 0.2, rng.integers(0, 10, count), true)
    names = [f"{classes[given[k]]}/photo_{k:05}.jpg" for k in range(count)]
    images = rng.integers(0, 256, (5_000, 3, 32, 32), dtype=np.uint8)[np.arange(count) % 5_000]
    audit = made_up(names, classes, given, true, known=True)
    path = folder / "large.html"
    write_report(path, audit, make_run(folder / "run"), thumbnails_of(Split(images, given)))
    return path


def without_pictures(folder: Path, count: int, classes: int) -> Path:
    """Rows of a table; the names of their classes are such as could break a page."""
    rng = np.random.default_rng(2)
    nasty = [
        "</script><b>bold</b>",
        "<img src=x onerror=alert(1)>",
        "\"quoted\" & 'so'",
        "a rather long name of a class",
    ]
    true = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)])
    given = np.where(rng.random(count) < 0.1, rng.integers(0, classes, count), true)
    names = (nasty + [f"class {c}" for c in range(classes)])[:classes] if classes > 2 else ["benign", "malignant"]
    audit = made_up([f"row {k}" for k in range(count)], names, given, true, known=False)
    path = folder / f"{classes}-classes.html"
    write_report(path, audit, make_run(folder / "run"), None)
    return path


def of_images(folder: Path, root: Path) -> Path:
    """Images of a folder, a tenth of which get the label of another class."""
    rng = np.random.default_rng(3)
    files = sorted(path for path in root.glob("*/*") if path.is_file())
    chosen = [files[k] for k in np.sort(rng.permutation(len(files))[:500])]
    classes = sorted({path.parent.name for path in files})
    true = np.array([classes.index(path.parent.name) for path in chosen])
    names = [str(path.relative_to(root)) for path in chosen]
    split = Split(ImageFiles(root, np.array(names, dtype=object), 64), true, tuple(names))
    given = np.where(rng.random(len(true)) < 0.12, rng.integers(0, len(classes), len(true)), true)
    audit = made_up(names, classes, given, true, known=True)
    path = folder / "images.html"
    write_report(path, audit, make_run(folder / "run"), thumbnails_of(split))
    return path


def seconds(page: Page, action: str) -> float:
    """Time an expression of the page until what it changed is on the screen."""
    script = f"""async () => {{
      const started = performance.now();
      {action};
      await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
      return (performance.now() - started) / 1000;
    }}"""
    return float(page.evaluate(script))


def opened(browser: Browser, path: Path, **look: Any) -> Page:
    """Open a report; whatever it asks the network for, or goes wrong in it, is an error."""
    page = browser.new_page(**look)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    started = time.perf_counter()
    page.goto(path.absolute().as_uri())
    page.wait_for_selector(".card")
    took = time.perf_counter() - started
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null")
    size = path.stat().st_size / 1e6
    first = "" if painted is None else f", first paint after {painted / 1000:.2f} s"
    print(f"{path.name}: {size:.1f} MB, open after {took:.2f} s{first}")
    assert not problems, problems
    return page


def check(page: Page, folder: Path) -> None:
    """Filter, decide, export, reload and import."""
    filtering = "const menu = document.querySelector('#filters [name=NAME]'); menu.value = 'VALUE'; " + (
        "menu.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    actions = {
        f"filter by {name}": filtering.replace("NAME", name).replace("VALUE", value)
        for name, value in (("given", "1"), ("least", "0.5"), ("name", "photo_1"), ("decision", "none"))
    }
    actions["all again"] = "document.getElementById('filters').reset()"
    actions["next page"] = "document.querySelector('.pager [aria-label^=Next]').click()"
    for title, action in actions.items():
        print(f"  {title}: {seconds(page, action):.3f} s")
    page.keyboard.press("Home")
    for key in ("k", "r", "d", "3"):
        page.keyboard.press(key)
    page.locator(".card").nth(8).get_by_text("drop").click()
    expect = {"keep": 1, "relabel": 2, "drop": 2}
    assert tally(page) == expect, tally(page)
    page.reload()
    assert tally(page) == expect, "lost by a reload"
    with page.expect_download() as download:
        page.locator("#export").click()
    file = folder / "decisions.json"
    download.value.save_as(file)
    made = json.loads(file.read_text())["decisions"]
    assert sorted(d["decision"] for d in made) == ["drop", "drop", "keep", "relabel", "relabel"]
    assert all(("label" in d) == (d["decision"] == "relabel") for d in made)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#forget").click()
    assert tally(page) == {"keep": 0, "relabel": 0, "drop": 0}
    page.locator("#import").set_input_files(file)
    page.locator("#message", has_text="imported").wait_for()
    assert tally(page) == expect, "lost by export and import"
    file.write_text(file.read_text().replace("made up", "other"))
    page.locator("#import").set_input_files(file)
    page.locator("#message", has_text="other data").wait_for()


def tally(page: Page) -> dict[str, int]:
    """Read how many decisions the page counts."""
    words = page.locator("#tally").inner_text().split()
    return {kind: int(number) for number, kind in zip(words[::2], words[1::2], strict=True)}


def shoot(browser: Browser, path: Path, out: Path) -> None:
    """Save a screenshot of every part, light and dark, wide and narrow."""
    for look, scheme, size in (("light", "light", WIDE), ("dark", "dark", WIDE), ("narrow", "light", NARROW)):
        page = opened(browser, path, color_scheme=scheme, viewport=size)
        for key in ("r", "r", "k", "r", "d"):
            page.keyboard.press(key)
        for view in ("examples", "labels", "run"):
            page.evaluate(f"location.hash = '{view}'")
            page.wait_for_timeout(400)
            page.screenshot(path=out / f"{path.stem}-{view}-{look}.png", full_page=view != "examples")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path.name} is {overflow} pixels too wide at {size['width']}"
        page.close()


@click.command()
@click.option("--out", type=Path, default=Path("report-shots"), help="Folder for reports and screenshots.")
@click.option("--chromium", type=Path, help="The browser; by default Playwright's own.")
@click.option("--images", type=Path, help="A folder of class folders.")
def main(out: Path, chromium: Path | None, images: Path | None) -> None:
    """Make the reports, try them, save screenshots."""
    out.mkdir(parents=True, exist_ok=True)
    makers: list[Callable[[], Path]] = [
        lambda: large(out),
        lambda: without_pictures(out, 3_000, 100),
        lambda: without_pictures(out, 200, 2),
    ]
    if images is not None:
        makers.append(lambda: of_images(out, images))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for number, make in enumerate(makers):
            path = make()
            if number == 0:
                page = opened(browser, path, viewport=WIDE)
                check(page, out)
                page.close()
            shoot(browser, path, out)
        browser.close()


if __name__ == "__main__":
    main()
