"""The live page in a real browser, from given objects."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from kubectl_whatsapp.dashboard.server import Server
from unit.kubectl.clusters import a_cluster, condition
from unit.kubectl.dashboards import a_dashboard
from unit.kubectl.watched import WatchedApi, changed, fail_over, renamed, watched

from .chromium import PATIENCE, PageLog, a_tab

Obj = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
expect.set_options(timeout=PATIENCE)

LONG = "a-name-that-is-as-long-as-the-operator-lets-one-be"
OPERATION = {
    "id": "1",
    "from": 2,
    "to": 4,
    "answer": "Accepted",
    "attempts": 2,
    "startedAt": "2027-01-04T11:59:50Z",
    "deadline": "2027-01-04T12:30:00Z",
}
REGIONS = (
    "Verdict",
    "Shards on Coreapps on nodes",
    "Operation",
    "Why",
    "Shard 1",
    "Spares",
    "Handovers",
    "Conditions",
    "Operator",
)
CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  const light = (colour) => colour.slice(0, 3).map((one) => linear(one / 255))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const background = (element) => {
    const rect = element.ownerSVGElement && element.parentNode.querySelector(":scope > rect");
    if (rect && getComputedStyle(rect).fill !== "none") return numbers(getComputedStyle(rect).fill);
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((one) => one.nodeType === 3 && one.data.trim()).map((one) => one.data).join("");
    if (!text || !element.checkVisibility() || ["SCRIPT", "TITLE", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(numbers(element.ownerSVGElement ? style.fill : style.color)), light(background(element))];
    found.push([text, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)]);
  }
  return found;
}"""
FOCUS = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const rect = one.classList.contains("shard") ? getComputedStyle(one.querySelector("rect")) : null;
  const hasOutline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const isVisible = rect ? rect.stroke !== "none" && parseFloat(rect.strokeWidth) >= 3 : hasOutline;
  const name = one.id || one.dataset.key || one.getAttribute("href") || one.textContent.trim().slice(0, 30);
  return [one.tagName, name, isVisible];
}"""
BOXES = """[...document.querySelectorAll(".shard")].map((one) => one.getBoundingClientRect())
  .map(({x, y, right, bottom}) => [x, y, right, bottom])"""
SIZES = "[...document.querySelectorAll('#picture text')].map((one) => parseFloat(getComputedStyle(one).fontSize))"
STILL = """async () => {
  const deadline = performance.now() + 60000;
  while (document.getAnimations().length > 0) {
    if (performance.now() > deadline) throw new Error("something still moves after 60 s");
    await new Promise(requestAnimationFrame);
  }
}"""
"""Waits until nothing moves. The promise of one animation would be rejected when a later change takes its place."""
POSITIONS = """() => {
  window.positions = new Set();
  window.motions = 0;
  const shard = document.querySelector('.shard[data-key="0"]');
  shard.addEventListener("transitionrun", ({target, propertyName}) => {
    window.motions += target === shard && propertyName === "transform";
  });
  const note = () => {
    const box = shard.getBoundingClientRect();
    window.positions.add(`${Math.round(box.x)} ${Math.round(box.y)}`);
    requestAnimationFrame(note);
  };
  note();
}"""
"""Notes where shard 0 is in each frame, and how often it begins to move there instead of being there at once."""


@asynccontextmanager
async def a_page(browser: Browser, api: WatchedApi, where: str = "", **options: Any) -> AsyncIterator[tuple[Page, Server, PageLog]]:
    """The page of a dashboard of an API server. At the end it has asked no other server, and has complained about nothing."""
    async with a_dashboard(api.url) as server:
        async with a_tab(browser, server.url + where, **options) as (page, noted):
            await page.locator("#cluster").wait_for()
            yield page, server, noted
        noted.check(server.url)


def resizing() -> Obj:
    """shop/acme while Set Shards restarts its Coreapps."""
    found = renamed(a_cluster(), "shop", "acme")
    found["cluster"]["spec"]["shards"] = 4
    found["cluster"]["status"] |= {"operation": OPERATION, "reason": "Restarting", "message": "Set Shards restarts all Coreapps."}
    found["cluster"]["status"]["conditions"] = [condition("Reconciling", "True", "Restarting"), condition("Ready", "False", "Restarting")]
    return found


def shard(page: Page, number: int) -> Any:
    return page.locator(f'.shard[data-key="{number}"]')


def holder(name: str) -> re.Pattern[str]:
    return re.compile(rf"held by {name} ")


async def widths(page: Page) -> tuple[int, int]:
    """How wide the page is, and how much of it is seen."""
    wide, seen = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return int(wide), int(seen)


# --- what is shown ----------------------------------------------------------------------------------------------------------


async def test_everything_is_on_the_page_under_a_name(browser: Browser) -> None:
    with watched(resizing(), renamed(a_cluster(), "den", "other")) as api:
        async with a_page(browser, api, "#shop/acme/1") as (page, _, _):
            await expect(page.get_by_role("heading", name="shop/acme", level=1)).to_be_visible()
            await expect(page.get_by_role("banner")).to_be_visible()
            await expect(page.get_by_role("navigation", name="Clusters")).to_be_visible()
            await expect(page.get_by_role("main", name="shop/acme")).to_be_visible()
            for name in REGIONS:
                await expect(page.get_by_role("region", name=name, exact=True)).to_be_visible()
            await expect(page.get_by_role("searchbox", name="Filter clusters")).to_be_visible()
            await expect(page.get_by_role("toolbar", name="Shards").get_by_role("button")).to_have_count(2)
            step = page.get_by_role("progressbar", name=re.compile("Step . of .: Restarting, shards 2 → 4, attempt 2"))
            assert await step.evaluate("one => one.value / one.max") > 0.5
            deadline = page.get_by_role("progressbar", name=re.compile("Deadline in "))
            assert 0 < await deadline.evaluate("one => one.value / one.max") < 0.1
            await expect(page.locator("#comes-next")).to_contain_text("shards get their holders")
            await expect(page.locator("#handovers")).to_contain_text("Failover of shard 0, acme-coreapp-2 → acme-coreapp-0")
            await expect(page.locator("#handovers")).to_contain_text("commit 31 ms, serve 12 ms")
            await expect(page.locator("#conditions")).to_contain_text("Ready is false: Restarting")
            await expect(page.locator("#rule")).to_have_text("ScalingUp")  # for 4 shards there are too few Coreapps
            await expect(page.locator("#spares")).to_contain_text("acme-coreapp-2 on node-2: eligible")
            await expect(page.locator("#operator")).to_contain_text("op-a_1234 leads")


async def test_without_an_operator_the_answer_to_why_says_that_nothing_is_done(browser: Browser) -> None:
    for cluster, times in ((a_cluster(), 0), (a_cluster().operator_dead(), 1)):
        with watched(renamed(cluster, "shop", "acme")) as api:
            async with a_page(browser, api, "#shop/acme/0") as (page, _, _):
                await expect(page.locator("#rule")).to_have_text("UpToDate")
                await expect(page.get_by_text("No operator leads: none of this is done until one does.")).to_have_count(times)


async def test_colour_is_never_the_only_sign(browser: Browser) -> None:
    with watched(renamed(a_cluster(4, 2).unready("acme-coreapp-1", "acme-coreapp-5"), "shop", "acme")) as api:
        async with a_page(browser, api) as (page, _, _):
            await expect(page.locator("#level")).to_have_text("✕ critical")
            await expect(shard(page, 0)).to_contain_text("✓")
            await expect(shard(page, 1)).to_contain_text("✕")
            shapes = [await shard(page, number).locator("rect").get_attribute("rx") for number in (0, 1)]
            assert shapes[0] != shapes[1]
            await expect(page.locator('.pod[data-key="acme-coreapp-4"]')).to_contain_text("spare")
            await expect(page.locator('.pod[data-key="acme-coreapp-5"]')).to_contain_text("not eligible")
            assert await shard(page, 1).get_attribute("aria-label") == (
                "Shard 1, not served, held by acme-coreapp-1 on node node-1: acme-coreapp-1 is not ready"
            )


async def test_a_shard_without_a_holder_is_shown_apart(browser: Browser) -> None:
    with watched(renamed(a_cluster(), "shop", "acme")) as api:
        async with a_page(browser, api) as (page, _, _):
            changed(api, "services", "acme-shard-1", lambda one: one["metadata"].update(annotations={}))
            await expect(page.locator(".nodes")).to_contain_text("without a holder")
            await expect(shard(page, 1)).to_have_attribute("aria-label", "Shard 1, not served, without a holder: no Coreapp has it")


async def test_texts_of_a_cluster_are_never_markup(browser: Browser) -> None:
    hostile = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    with watched(renamed(a_cluster().says("Stalled", "True", "SpecInvalid", hostile).status(message=hostile), "shop", "acme")) as api:
        async with a_page(browser, api) as (page, _, _):
            await expect(page.locator("#verdict")).to_contain_text(hostile)
            await expect(page.locator("#conditions")).to_contain_text(hostile)
            assert await page.locator("img").count() == 0
            assert await page.title() != "taken"


# --- what moves -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
async def test_a_shard_that_moves_is_seen_to_move_unless_the_person_wants_no_motion(browser: Browser, motion: str) -> None:
    with watched(renamed(a_cluster(), "shop", "acme")) as api:
        async with a_page(browser, api, reduced_motion=motion) as (page, _, _):
            await expect(shard(page, 0)).to_have_attribute("aria-label", holder("acme-coreapp-0"))
            element = await shard(page, 0).element_handle()
            await page.evaluate(POSITIONS)
            fail_over(api)
            await expect(shard(page, 0)).to_have_attribute("aria-label", holder("acme-coreapp-2"))
            assert await element.evaluate("one => one.isConnected")  # it is the same element all the way
            await expect(page.locator('.pod[data-key="acme-coreapp-0"]')).to_have_count(0)  # the last change: everything may move for it
            await page.evaluate(STILL)
            positions, motions = await page.evaluate("[[...window.positions], window.motions]")
            spare = await page.locator('.pod[data-key="acme-coreapp-2"]').bounding_box()
            box = await shard(page, 0).bounding_box()
            assert box is not None
            assert spare is not None
            assert spare["x"] < box["x"] < spare["x"] + spare["width"]
            assert spare["y"] < box["y"] < spare["y"] + spare["height"]
            duration = await shard(page, 0).evaluate("one => getComputedStyle(one).transitionDuration")
            if motion == "reduce":
                assert (duration, motions) == ("0s", 0)
                assert len(positions) <= 3  # before, after, and the node's box without Coreapp 0
            else:
                assert float(duration.removesuffix("s")) > 0.2
                assert motions > 0  # not by the positions: a busy machine shows few frames of a motion


# --- when something is away ---------------------------------------------------------------------------------------------------


async def test_while_the_api_server_is_away_the_page_says_so_and_since_when_and_goes_on_by_itself(browser: Browser) -> None:
    with watched(renamed(a_cluster(), "shop", "acme")) as api:
        async with a_page(browser, api) as (page, _, _):
            await expect(page.locator("#connection-text")).to_have_text("✓ Live")
            sentence = await page.locator("#sentence").text_content()
            api.go_away()
            await expect(page.locator("#connection-text")).to_contain_text("The API server does not answer")
            await expect(page.locator("#connection-age")).to_have_text(re.compile(r"Last seen ([3-9]|[1-9]\d) s ago\."))
            await expect(page.locator("#sentence")).to_have_text(sentence or "")
            fail_over(api)
            api.compact()
            api.come_back()
            await expect(page.locator("#connection-text")).to_have_text("✓ Live")
            await expect(page.locator("#connection-age")).to_have_text("")
            await expect(shard(page, 0)).to_have_attribute("aria-label", holder("acme-coreapp-2"))


async def test_when_the_command_ended_the_page_says_so(browser: Browser) -> None:
    with watched(renamed(a_cluster(), "shop", "acme")) as api:
        async with a_dashboard(api.url) as server:
            tab = a_tab(browser, server.url)
            page, _ = await tab.__aenter__()
            await page.locator("#cluster").wait_for()
        await expect(page.locator("#connection-text")).to_contain_text("process does not answer. Run kubectl whatsapp dashboard again.")
        await expect(page.locator("#sentence")).to_contain_text("All 2 shards are served")
        await tab.__aexit__(None, None, None)


# --- keyboard -----------------------------------------------------------------------------------------------------------------


async def test_everything_is_reached_by_tab_and_the_focus_is_seen(browser: Browser) -> None:
    with watched(renamed(a_cluster(4, 1), "shop", "acme"), renamed(a_cluster(), "shop", "other")) as api:
        async with a_page(browser, api, "#shop/acme/1") as (page, _, _):
            await page.locator("#shard-part").wait_for()
            reached = []
            for _ in range(30):
                await page.keyboard.press("Tab")
                tag, name, is_visible = await page.evaluate(FOCUS)
                if tag == "BODY":
                    break
                reached.append(name)
                assert is_visible, (tag, name)
            assert reached[:4] == ["skip", "filter", "#shop/acme", "0"]
            assert "All shards as text" in reached
            assert any(name.startswith("Evidence that does not hold") for name in reached)


async def test_shards_and_clusters_are_chosen_by_arrows_and_enter(browser: Browser) -> None:
    with watched(renamed(a_cluster(4, 1), "shop", "acme"), renamed(a_cluster(), "shop", "other")) as api:
        async with a_page(browser, api) as (page, _, _):
            await shard(page, 0).focus()
            for key, number in (("ArrowRight", 1), ("End", 3), ("ArrowRight", 3), ("ArrowLeft", 2), ("Home", 0), ("ArrowDown", 1)):
                await page.keyboard.press(key)
                await expect(shard(page, number)).to_be_focused()
            await page.keyboard.press("Enter")
            await expect(page.locator("#shard-title")).to_have_text("Shard 1")
            await expect(page.locator("#shard")).to_contain_text("acme-coreapp-1 holds it, and there is no evidence against it.")
            await expect(shard(page, 1)).to_have_attribute("aria-pressed", "true")
            await expect(shard(page, 1)).to_be_focused()
            await page.keyboard.press("Escape")
            await expect(page.locator("#shard-part")).to_be_hidden()

            await page.locator("#clusters-list a").first.focus()
            await page.keyboard.press("ArrowDown")
            await page.keyboard.press("Enter")
            await expect(page.locator("#title")).to_have_text("shop/other")
            await expect(page.locator("#clusters-list a").nth(1)).to_be_focused()
            await expect(page.locator("#clusters-list a").nth(1)).to_have_attribute("aria-current", "true")


async def test_the_skip_link_leads_to_the_cluster_and_keeps_what_is_selected(browser: Browser) -> None:
    with watched(renamed(a_cluster(), "shop", "acme"), renamed(a_cluster(), "shop", "other")) as api:
        async with a_page(browser, api, "#shop/other") as (page, _, _):
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await expect(page.locator("#main")).to_be_focused()
            assert page.url.endswith("#shop/other")


async def test_what_a_person_opened_stays_open_while_the_cluster_changes(browser: Browser) -> None:
    with watched(renamed(a_cluster(), "shop", "acme")) as api:
        async with a_page(browser, api) as (page, _, _):
            await page.get_by_text("Assumed, because").click()
            fail_over(api)
            await expect(shard(page, 0)).to_have_attribute("aria-label", holder("acme-coreapp-2"))
            await expect(page.get_by_text("the operator passes its self-check")).to_be_visible()


CHANGES = """() => new Promise((done) => {
  const stream = new EventSource("events");
  let count = 0;
  stream.addEventListener("cluster", () => {
    count += 1;
    if (count < 3) return;
    stream.close();
    done();
  });
})"""
"""Waits until the page was sent at least one newer state of the cluster."""


@pytest.mark.parametrize("part", ["#steps code >> nth=0", "#why p >> nth=1", "#conditions .few >> nth=0"])
async def test_a_text_that_a_person_has_selected_stays_selected(browser: Browser, part: str) -> None:
    with watched(renamed(a_cluster().operator_dead(), "shop", "acme")) as api:
        async with a_page(browser, api) as (page, _, _):
            await page.locator(part).evaluate("one => getSelection().selectAllChildren(one)")
            selected = await page.evaluate("getSelection().toString()")
            await page.evaluate(CHANGES)
            assert selected
            assert await page.evaluate("getSelection().toString()") == selected


@pytest.mark.parametrize("where", ["#%", "#shop/acme%E0/1"])
async def test_an_address_that_was_cut_off_shows_the_first_cluster(browser: Browser, where: str) -> None:
    with watched(renamed(a_cluster(), "shop", "acme")) as api:
        async with a_page(browser, api, where) as (page, _, _):
            await expect(page.locator("#title")).to_have_text("shop/acme")


# --- every size and colour ------------------------------------------------------------------------------------------------------


def _large() -> Iterable[Obj]:
    yield renamed(a_cluster(32, 2).unready("acme-coreapp-7", waiting="CrashLoopBackOff"), "a-namespace-with-a-long-name", LONG)
    yield resizing()


@pytest.mark.parametrize("width", [320, 400, 760, 1280, 1920])
async def test_nothing_is_wider_than_the_window(browser: Browser, width: int) -> None:
    with watched(*_large()) as api:
        for where in (f"#a-namespace-with-a-long-name/{LONG}/7", "#shop/acme/0"):
            async with a_page(browser, api, where, viewport={"width": width, "height": 800}) as (page, _, _):
                await page.locator("#shard-part").wait_for()
                for summary in await page.locator("main summary").all():
                    await summary.click()
                wide, seen = await widths(page)
                assert wide <= seen == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_texts_can_be_read_in_both_colour_schemes(browser: Browser, scheme: str) -> None:
    """A contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    with watched(*_large(), renamed(a_cluster().operator_dead(), "den", "leaderless")) as api:
        async with a_page(browser, api, f"#a-namespace-with-a-long-name/{LONG}/7", color_scheme=scheme) as (page, _, _):
            await page.locator("#shard-part").wait_for()
            found = await page.evaluate(CONTRAST)
            assert len(found) > 100
            assert not [(text, ratio) for text, ratio in found if ratio < 4.5]
            background = await page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            assert (sum(background) < 3 * 60) == (scheme == "dark")


async def test_32_shards_can_be_read(browser: Browser) -> None:
    with watched(*_large()) as api:
        async with a_page(browser, api, f"#a-namespace-with-a-long-name/{LONG}") as (page, _, _):
            await expect(page.locator(".shard")).to_have_count(32)
            boxes = await page.evaluate(BOXES)
            picture = await page.locator("#picture svg").bounding_box()
            assert picture is not None
            for at, one in enumerate(boxes):
                assert one[0] >= picture["x"]
                assert one[2] <= picture["x"] + picture["width"]
                for other in boxes[:at]:
                    assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
            sizes = await page.evaluate(SIZES)
            assert min(sizes) >= 10
            await page.get_by_text("All shards as text").click()
            await expect(page.locator("#shards li")).to_have_count(32)


async def test_200_clusters_in_2_namespaces_are_found_by_filter_and_keys(browser: Browser) -> None:
    given = [renamed(a_cluster(), namespace, f"c{number:03}") for namespace in ("one", "two") for number in range(100)]
    with watched(*given) as api:
        async with a_page(browser, api, viewport={"width": 400, "height": 800}) as (page, _, _):
            await expect(page.locator("#clusters-count")).to_have_text("200 clusters")
            await expect(page.get_by_role("list", name="Clusters of namespace two").get_by_role("link")).to_have_count(100)
            wide, seen = await widths(page)
            assert wide <= seen == 400
            changed(api, "pods", "c007-coreapp-1", lambda pod: pod["status"].update(conditions=[]), namespace="two")
            await expect(page.locator("#clusters .badge.critical")).to_have_count(1)
            await page.get_by_label("Filter clusters").fill("two/c00")
            await expect(page.locator("#clusters-count")).to_have_text("10 of 200 clusters")
            await page.keyboard.press("Tab")
            await page.keyboard.press("End")
            await page.keyboard.press("ArrowUp")
            await page.keyboard.press("ArrowUp")
            await page.keyboard.press("Enter")
            await expect(page.locator("#title")).to_have_text("two/c007")
            await expect(page.locator("#sentence")).to_contain_text("1 of 2 shards is not served")
