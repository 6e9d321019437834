"""One thread a process: the networks are tiny, and test workers share the cores. And a browser, for pages."""

import os
import shutil

import pytest
import torch

torch.set_num_threads(1)

_LONGEST = ("test_notebooks.py", "test_gallery.py", "test_study.py")  # minutes each: last, they keep one worker waiting
_PATIENCE = 120_000  # milliseconds: drawing without a graphics card, on a machine that others use, too


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


@pytest.fixture(scope="module")  # its event loop must not outlive the module: other tests start their own
def chromium():
    """A function that opens a file in a headless Chromium without a network; it collects errors of the page."""
    if not os.environ.get("DROPATTACK_BROWSER"):
        pytest.skip("make test-browser runs it: drawing in a browser takes minutes without a graphics card")
    from playwright import sync_api as playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.fail("expected chromium, chromium-browser or google-chrome on the path; apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=program,
            # Draws without a card, and in a container with little shared memory.
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"],
        )

        def opened(path, **options):
            context = browser.new_context(offline=True, **options)
            page = context.new_page()
            page.set_default_timeout(_PATIENCE)
            page.errors = []
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
            page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:"))
                    else page.errors.append(f"asked for {asked.url}"))  # fmt: skip
            page.goto(path.as_uri())
            return page

        yield opened
        browser.close()
