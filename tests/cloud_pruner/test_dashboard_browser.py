"""The dashboard as people meet it: in a real browser, by keyboard, in the dark, on a phone, and without scripts."""

from __future__ import annotations

import re

import pytest

from tests.support.browser import (
    faint_texts,
    has_visible_focus,
    headless_chromium,
    is_too_wide,
    nameless_controls,
    tab,
)
from tests.support.dashboard import HOSTILE_NAME, HOSTILE_REASON, hand_out_cuts, running_fleet

TRIED = "/try?class=one&class=seven&weight.one=3&epsilon=0.2&guarantee=certified"
PAGES = [
    "/",
    "/devices",
    "/devices/porch-cam",
    "/devices/kitchen",
    "/models",
    "/models/digits",
    "/models/digits/confirm?step=start&share=25&candidate={second}",
    TRIED,
]


@pytest.fixture(scope="module")
def chromium():
    with headless_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def fleet(chromium, digits_profile, tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("fleet"), digits_profile) as fleet:
        hand_out_cuts(fleet)
        for number in range(60):
            fleet.parts.devices.register(f"shelf-{number:02}")
        yield fleet


@pytest.fixture
def open_tab(chromium, fleet):
    """Return what opens a page of somebody who has signed in."""
    return lambda **options: tab(chromium, fleet.url, [fleet.cookie], **options)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_every_page_can_be_read(fleet, open_tab, scheme, width):
    """In both colour schemes, and on a phone; no script fails, nothing is missing, nothing comes from elsewhere."""
    with open_tab(color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        for path in PAGES:
            page.goto(path.format(second=fleet.profiles[1].digest))
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            assert page.locator("h1").count() == 1
            assert faint_texts(page) == [], path
            assert not is_too_wide(page), path
            assert nameless_controls(page) == [], path


class TestKeyboard:
    def test_the_content_is_one_key_away(self, open_tab):
        with open_tab() as page:
            page.goto("/")
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
            assert has_visible_focus(page)
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.id") == "content"
            page.keyboard.press("Tab")
            assert page.evaluate("document.querySelector('main').contains(document.activeElement)")

    @pytest.mark.parametrize("path", ["/", "/devices/porch-cam", "/models/digits", TRIED])
    def test_every_control_is_come_to_in_order_and_seen(self, open_tab, path):
        with open_tab() as page:
            page.goto(path)
            controls = page.locator(
                "a[href], button, input:not([type=hidden]):not([disabled]), select, summary, [tabindex='0']"
            ).filter(visible=True)
            wanted = controls.evaluate_all("all => all.map((one) => (one.dataset.number = all.indexOf(one)))")
            reached = []
            for _ in wanted:
                page.keyboard.press("Tab")
                assert has_visible_focus(page)
                reached.append(page.evaluate("Number(document.activeElement.dataset.number)"))
            assert reached == wanted

    def test_a_certificate_is_opened(self, open_tab):
        with open_tab() as page:
            page.goto("/devices/porch-cam")
            page.locator("summary").first.focus()
            page.keyboard.press("Enter")
            page.get_by_role("table", name="Certificate, class by class").wait_for()


class TestFleet:
    def test_what_it_comes_to(self, open_tab):
        with open_tab() as page:
            page.goto("/")
            figures = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
            assert figures["devices"] == "63"
            assert figures["cuts handed out"] == "4"
            assert figures["of the devices' cuts are certified"] == "33.3 %"
            newest = page.get_by_role("table", name="Newest cuts")
            assert newest.get_by_role("row").count() == 5
            assert "unknown" not in newest.inner_text()

    def test_the_tiers_change_while_one_looks(self, fleet, open_tab):
        with open_tab() as page:
            page.goto("/")
            page.get_by_text("Live.").wait_for()
            exact = page.locator("[data-total='tier:exact']")
            before, width = int(exact.inner_text()), page.locator("[data-share='tier:exact']").get_attribute("width")
            for _ in range(3):
                fleet.ask("kitchen", {"one": 3, "seven": 1})
            page.wait_for_function(
                "was => Number(document.querySelector('[data-total=\"tier:exact\"]').textContent) > was", arg=before
            )
            page.locator("[data-total='tier:exact']").get_by_text(str(before + 3), exact=True).wait_for()
            assert float(page.locator("[data-share='tier:exact']").get_attribute("width")) > float(width)

    def test_one_is_told_when_they_no_longer_do(self, open_tab):
        with open_tab(refused=1) as page:
            page.goto("/")
            page.get_by_text("Live.").wait_for()
            page.route("**/live", lambda route: route.fulfill(status=401))
            page.evaluate("location.reload()")
            page.get_by_text("No longer live").wait_for()

    def test_what_devices_say_is_text(self, open_tab):
        with open_tab() as page:
            page.goto("/")
            link = page.get_by_role("link", name=HOSTILE_NAME)
            link.click()
            assert page.locator("h1").inner_text() == HOSTILE_NAME
            page.goto("/devices/kitchen")
            page.get_by_text(HOSTILE_REASON).wait_for()
            assert page.locator("main img, main script").count() == 0


class TestDevices:
    def test_are_found_by_a_part_of_their_name(self, open_tab):
        with open_tab() as page:
            page.goto("/devices")
            page.get_by_label("Part of a name or model").fill("PORCH")
            page.keyboard.press("Enter")
            page.wait_for_url("**/devices?search=PORCH")
            assert page.locator("tbody th").all_inner_texts() == ["porch-cam"]

    def test_are_shown_page_by_page(self, open_tab):
        with open_tab() as page:
            page.goto("/devices?search=shelf")
            first = page.locator("tbody th").all_inner_texts()
            page.get_by_role("link", name="Further names").click()
            page.get_by_role("link", name="From the first name").wait_for()
            assert [*first, *page.locator("tbody th").all_inner_texts()] == [f"shelf-{n:02}" for n in range(60)]
            assert page.get_by_role("link", name="Further names").count() == 0

    def test_have_a_history_with_certificates(self, fleet, open_tab):
        with open_tab() as page:
            page.goto("/devices/porch-cam")
            newest, first = page.locator(".cuts > li").all()
            certificate = fleet.parts.history.of("porch-cam", 1)[0].manifest.certificate
            newest.get_by_text("Certificate", exact=True).click()
            assert "no class loses more than 20.0 points" in newest.inner_text()
            for name, evidence in certificate.classes.items():
                row = newest.get_by_role("row", name=name).inner_text().split()
                assert row[1:5] == [
                    str(count)
                    for count in (evidence.images, evidence.base_right, evidence.newly_wrong, evidence.newly_right)
                ]
            first.get_by_text("Accuracy, class by class").click()
            assert "Not certified: measured on the images of the search itself" in first.inner_text()
            assert page.locator(".plot .dot").count() == 2


class TestRollouts:
    def test_are_started_widened_and_taken_back(self, fleet, open_tab):
        first, second = (profile.digest for profile in fleet.profiles)
        with open_tab() as page:
            page.goto("/models/digits")
            page.get_by_label("Share of devices (%)").fill("25")
            page.get_by_role("button", name="Start…").click()
            assert second[:12] in page.locator("main").inner_text()
            assert fleet.parts.rollouts.get("digits").candidate is None  # nothing is done before it is confirmed
            page.get_by_role("button", name="Start").click()
            page.wait_for_url("**/models/digits")
            assert (fleet.parts.rollouts.get("digits").candidate, fleet.parts.rollouts.get("digits").share) == (
                second,
                0.25,
            )
            assert "25 % of the devices" in page.get_by_role("table", name="Profile versions").inner_text()
            page.get_by_label("Share of devices (%)").fill("50")
            page.get_by_role("button", name="Widen…").click()
            page.get_by_role("button", name="Widen").click()
            page.wait_for_url("**/models/digits")
            assert fleet.parts.rollouts.get("digits").share == 0.5
            page.get_by_role("button", name="Take back…").click()
            page.get_by_role("button", name="Take back").click()
            page.wait_for_url("**/models/digits")
            assert fleet.parts.rollouts.get("digits").candidate is None
            assert fleet.parts.rollouts.get("digits").current == first


class TestTrying:
    def test_a_wish_is_answered_in_place(self, open_tab):
        with open_tab() as page:
            page.goto("/try")
            page.get_by_label("Show classes with").fill("EV")
            assert (
                page.get_by_role("checkbox").evaluate_all("all => all.filter((one) => one.checkVisibility()).length")
                == 1
            )
            page.get_by_label("Show classes with").fill("")
            page.get_by_role("checkbox", name="two").focus()
            page.keyboard.press("Space")
            page.get_by_role("heading", name="The cut").wait_for()
            page.get_by_role("checkbox", name="five").check()
            page.get_by_role("table", name="Accuracy, class by class").get_by_role("row", name="five").wait_for()
            page.get_by_label("Weight of five").fill("3")
            page.get_by_label("Weight of five").press("Tab")
            page.get_by_role("row", name=re.compile("^five .* 75.0$")).wait_for()
            page.get_by_label("Epsilon").fill("0.1")
            page.get_by_label("Epsilon").press("Enter")
            page.wait_for_url(lambda url: "epsilon=0.1" in url and "weight.five=3" in url and "weight.one" not in url)
            size = page.locator("#status").inner_text()
            page.reload()  # what is in the address can be come back to
            assert page.locator("#status").inner_text() == size
            assert page.get_by_label("Weight of five").input_value() == "3"

    def test_what_is_shown_adds_up(self, open_tab):
        with open_tab() as page:
            page.goto(TRIED)
            images = dict.fromkeys(("one", "seven"), 20)  # of the report split, which nothing else looks at
            for title in ("Base", "Cut"):
                rows = page.get_by_role("region", name=title, exact=True).locator("tbody tr").all_inner_texts()
                counted = {row.split()[0]: [int(count) for count in row.split()[1:]] for row in rows}
                assert {name: sum(counts) for name, counts in counted.items()} == images
                accuracy = page.get_by_role("table", name="Accuracy, class by class")
                for number, (name, counts) in enumerate(counted.items()):
                    shown = accuracy.get_by_role("row", name=name).inner_text().split()
                    assert f"{100 * counts[number] / 20:.1f}" in shown
            assert "that neither search nor certification has seen" in page.locator("main").inner_text()
            assert "With a probability of at least 90.0 % (delta 0.1)" in page.locator("main").inner_text()

    def test_what_cannot_be_certified_is_explained(self, open_tab):
        with open_tab(refused=1) as page:
            page.goto(TRIED)
            page.get_by_label("Epsilon").fill("0.01")
            page.get_by_label("Epsilon").press("Tab")
            page.get_by_text("Nothing can be certified:").wait_for()
            assert "has 20 certify images" in page.locator("#result").inner_text()
            assert page.locator("#status").inner_text() == "There is no cut."
            page.get_by_label("Guarantee").select_option("empirical")
            page.get_by_role("heading", name="The cut").wait_for()


class TestWithoutScripts:
    def test_the_fleet_has_its_figures(self, open_tab):
        with open_tab(java_script_enabled=False) as page:
            page.goto("/")
            assert page.locator("[data-total='tier:search']").inner_text() != "0"
            assert "These are the figures of when this page was made" in page.locator("main").inner_text()

    def test_a_cut_is_tried_with_the_button(self, open_tab):
        with open_tab(java_script_enabled=False) as page:
            page.goto("/try")
            assert (
                page.get_by_label("Show classes with").count() == 0
                or not page.get_by_label("Show classes with").is_visible()
            )
            page.get_by_role("checkbox", name="two").check()
            page.get_by_role("checkbox", name="five").check()
            page.get_by_role("button", name="Cut").click()
            page.get_by_role("heading", name="The cut").wait_for()
            page.get_by_label("Weight of five").fill("3")
            page.get_by_role("button", name="Cut").click()
            page.get_by_role("row", name=re.compile("^five .* 75.0$")).wait_for()
            assert page.get_by_role("checkbox", name="two").is_checked()

    def test_one_signs_in_and_out(self, chromium, fleet):
        with tab(chromium, fleet.url, java_script_enabled=False) as page:
            page.goto("/models/digits")
            page.get_by_label("Operator's token").fill(fleet.operator)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/models/digits")
            page.get_by_role("button", name="Sign out").click()
            page.wait_for_url("**/login")
            page.goto("/")
            page.wait_for_url("**/login")
