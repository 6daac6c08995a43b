"""Headless Chromium, as Debian has it, and what a test asks of it again and again."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WIDE, NARROW = 1280, 390
_HEIGHT = 900
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Browser:
    """A browser at a console."""

    driver: webdriver.Chrome
    address: str
    screenshots: Path

    def open(self, path: str) -> None:
        """Go to a page of the console."""
        self.driver.get(f"http://{self.address}{path}")

    def find(self, selector: str) -> WebElement:
        """Return what a selector names first, as soon as it can be seen."""

        def seen(driver: webdriver.Chrome) -> WebElement | None:
            return next(
                (e for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None
            )

        found = WebDriverWait(self.driver, _PATIENCE_S).until(seen, selector)
        assert isinstance(found, WebElement)
        return found

    def all(self, selector: str) -> list[WebElement]:
        """Return all that a selector names now."""
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def wait_for(self, selector: str, words: str) -> None:
        """Return as soon as something named by the selector says these words."""
        script = (
            "const [selector, words] = arguments;"
            "return [...document.querySelectorAll(selector)].some(e => e.textContent.includes(words))"
        )
        WebDriverWait(self.driver, _PATIENCE_S).until(
            lambda driver: driver.execute_script(script, selector, words), f"{selector} says {words}"
        )

    def choose(self, name: str, value: str) -> None:
        """Choose an option of the select with this name, as a keyboard would."""
        self.find(f'select[name="{name}"]').send_keys(value)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> WebElement:
        """Return what has the focus."""
        return self.driver.switch_to.active_element

    def emulate(self, *, width: int, dark: bool) -> None:
        """Be so wide, on a system with dark or light windows."""
        metrics = {"width": width, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def forget_theme(self) -> None:
        """Go by the system's theme again, and load the page anew."""
        self.driver.execute_script("localStorage.clear()")
        self.driver.refresh()

    def looks(self, name: str) -> None:
        """Store the page in both widths, light and dark; AssertionError where it is wider than the screen."""
        for width, dark in ((WIDE, False), (WIDE, True), (NARROW, False), (NARROW, True)):
            self.emulate(width=width, dark=dark)
            wide = self.driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} px wide on a screen of {width}"
            self._store(f"{name}-{width}-{'dark' if dark else 'light'}.png")
        self.emulate(width=WIDE, dark=False)

    def _store(self, name: str) -> None:
        picture = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": False}
        )
        (self.screenshots / name).write_bytes(base64.b64decode(picture["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser's console has said since it was asked last."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextmanager
def browsing(address: str, screenshots: Path) -> Iterator[Browser]:
    """Open a browser; skips where there is no Chromium or no driver of it."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium
    for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    screenshots.mkdir(parents=True, exist_ok=True)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser = Browser(opened, address, screenshots)
        browser.emulate(width=WIDE, dark=False)
        yield browser
    finally:
        opened.quit()


__all__ = ["Browser", "By", "Keys", "browsing"]
