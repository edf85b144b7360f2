"""The report as people meet it: in a real browser, with hostile texts, many tasks, on a phone, by keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

from pmpo_ray.report import write_report
from tests.run_folders import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install the package chromium"),
    pytest.mark.slow,
]

HOSTILE = (
    "</script><script>window.hacked = 1</script> \"><img src=x onerror='window.hacked = 2'> ' onmouseover='x "
    "{{ 7 * 7 }} {% raw %} ${7*7} \u202eright to left\u202c \x1b[31m &lt;b&gt; <!-- "
    "Answer the question. Be brief."
)
HUGE = "x" * 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of which every complaint and every request beyond its own file fails the test."""
    context = browser.new_context(viewport=ViewportSize(width=1200, height=900), offline=True)
    page = context.new_page()
    problems: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on(
        "request", lambda request: problems.append(request.url) if "report.html" not in request.url else None
    )
    yield page
    assert problems == []
    context.close()


@pytest.fixture(scope="module")
def one_task(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("one")
    write_run(folder / "run", search={"rounds": 3, "population": 2})
    return Path(write_report(str(folder / "run"))).as_uri()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every text that comes from outside is hostile: names, instructions, inputs, answers."""
    folder = tmp_path_factory.mktemp("hostile")
    data = folder / "own.csv"
    quoted = HOSTILE.replace('"', '""')
    rows = "".join(f'"{n} {quoted}","{"yes" if n % 2 else "<b>no</b>"}"\n' for n in range(60))
    data.write_text(f"input,target\n{rows}", encoding="utf-8")
    tasks = [
        {"name": "<img src=x onerror='window.hacked = 3'>", "path": str(data), "instruction": HOSTILE},
        {"name": HUGE, "path": str(data), "instruction": f"{HUGE} {HUGE}"},
    ]
    write_run(folder / "run", tasks=tasks)
    return Path(write_report(str(folder / "run"))).as_uri()


@pytest.fixture(scope="module")
def many_tasks(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> str:
    folder = tmp_path_factory.mktemp("many")
    names = sorted(path.stem for path in (data_dir / "bbh").glob("*.json"))[:6]
    tasks = [f"bbh/{name}" for name in names]
    write_run(folder / "run", tasks=tasks, data_dir=str(data_dir), search={"rounds": 2})
    return Path(write_report(str(folder / "run"))).as_uri()


def test_a_dot_shows_its_text_under_the_pointer(page: Page, one_task: str) -> None:
    page.goto(one_task)
    tip = page.locator("#tip")
    expect(tip).to_be_hidden()
    dot = page.locator("[data-id='r0000-0000']:visible")
    dot.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("r0000-0000 · round 0 · start · survivor · loss")
    expect(tip).to_contain_text("You work at a customer support desk.")
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()


def test_a_refused_text_tells_why(page: Page, one_task: str) -> None:
    page.goto(one_task)
    page.locator("details.candidates > summary").first.click()
    page.locator("details.candidates input").first.fill("refused")
    reason = page.locator(".list .why").first
    expect(reason).to_be_visible()
    shown = page.locator(".list article").first.locator(".about").inner_text().split(" · ")[0]
    page.locator(f"[data-id='{shown}']:visible").click()
    expect(page.locator("#tip .why")).to_have_text(reason.inner_text())


def test_arrow_keys_go_from_dot_to_dot(page: Page, one_task: str) -> None:
    page.goto(one_task)
    chart = page.locator("figure.dots").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tip")).to_contain_text("r0000-0000")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tip")).to_contain_text("round 1")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#tip")).to_contain_text("r0000-0000")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


def test_an_example_shows_what_was_asked_and_wanted(page: Page, one_task: str) -> None:
    page.goto(one_task)
    page.locator("[data-id='e0']").click()
    expect(page.locator("#tip")).to_contain_text("target:")


def test_the_list_of_candidates_filters(page: Page, one_task: str) -> None:
    page.goto(one_task)
    page.locator("details.candidates > summary").first.click()
    articles = page.locator(".list article")
    expect(articles.first).to_be_visible()
    whole = articles.count()
    page.locator("details.candidates input").first.fill("part left out")
    expect(page.locator("details.candidates [role=status]")).not_to_have_text(f"{whole} of {whole}")
    assert 0 < articles.count() < whole


def test_hostile_texts_stay_texts(page: Page, hostile: str) -> None:
    page.goto(hostile)
    page.locator("details.candidates > summary").first.click()
    expect(page.locator(".list article").first).to_be_visible()
    page.locator("[data-id='r0000-0000']:visible").hover()
    expect(page.locator("#tip")).to_contain_text("</script><script>window.hacked = 1</script>")
    expect(page.locator("#tip")).to_contain_text(
        "{{ 7 * 7 }} {% raw %} ${7*7} \\u202eright to left\\u202c \\x1b[31m &lt;b&gt; <!--"
    )
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    expect(page.locator("h2", has_text="onerror=").first).to_be_visible()
    first = page.locator("section.task").first
    expect(first.locator(".node .text").first).to_contain_text("' onmouseover='x {{ 7 * 7 }}")


def test_huge_texts_break_no_layout(page: Page, hostile: str) -> None:
    for width in (1200, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(hostile + "#task-1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_tasks_sort_and_filter(page: Page, many_tasks: str) -> None:
    page.goto(many_tasks)
    rows = page.locator(".overview tbody tr")
    assert rows.count() == 6
    for key, values in (("loss", "loss"), ("fell", "fell")):
        button = page.locator(f".overview th[data-key={key}] button")
        button.click()
        found = [float(row.get_attribute(f"data-{values}") or "nan") for row in rows.all()]
        assert found == sorted(found)
        button.click()
        found = [float(row.get_attribute(f"data-{values}") or "nan") for row in rows.all()]
        assert found == sorted(found, reverse=True)
        expect(page.locator(f".overview th[data-key={key}]")).to_have_attribute("aria-sort", "descending")
    page.keyboard.press("/")
    page.keyboard.type("causal")
    expect(page.locator("#shown")).to_have_text("1 of 6 tasks")
    expect(page.locator(".overview tbody tr:visible")).to_contain_text("bbh/causal_judgement")


def test_one_task_is_shown_at_a_time_and_links_lead_to_the_others(page: Page, many_tasks: str) -> None:
    page.goto(many_tasks)
    expect(page.locator("section.task:visible")).to_have_count(1)
    link = page.locator(".overview a").nth(3)
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("section.task:visible h2")).to_have_text(link.inner_text())
    expect(page.locator("section.task:visible h2")).to_be_focused()
    page.go_back()
    page.locator("section.task:visible a[rel=next]").click()
    expect(page.locator("section.task:visible h2")).to_have_text(
        page.locator(".overview a").nth(1).inner_text()
    )


def test_without_scripts_everything_is_there(browser: Browser, many_tasks: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(many_tasks)
    assert page.locator("section.task:visible").count() == 6
    expect(page.locator(".best-text, .card").first).to_be_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(browser: Browser, one_task: str, scheme: str) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.goto(one_task)
    contrast = page.evaluate(
        """() => {
            const shade = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number)
                .map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
            const paper = shade(getComputedStyle(document.body).backgroundColor);
            return [...document.querySelectorAll("p, dt, dd, h2, h3, th, td, .verdict, .key, svg text")]
                .map((e) => shade(e.closest("svg") ? getComputedStyle(e).fill : getComputedStyle(e).color))
                .map((ink) => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05))
                .reduce((least, found) => Math.min(least, found), 99);
        }"""
    )
    assert contrast >= 4.5
    context.close()


def test_a_phone_shows_all_within_its_width(page: Page, one_task: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(one_task)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("[data-id='r0000-0000']:visible").click()
    box = page.locator("#tip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
