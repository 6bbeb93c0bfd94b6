"""The page as text and HTML; a browser shows its pictures and tables without an error."""

import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

from ambient_jax.data import storage
from ambient_jax.data.look import page, samples, summary
from tests.data.look import folders

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EVIL = '<script>alert(1)</script><img src="http://a.b/c.png">\x1b[31m'


def looked_at(path, count=2, hz=None):
    dataset = storage.open_dataset(path, decode_images=False, allow_missing=True)
    found = summary.summarise(dataset, hz)
    return found, [samples.read(dataset, found, i) for i in samples.choose(found, count)]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A page of a folder with a fault of most kinds: (its summary, its samples)."""
    root = tmp_path_factory.mktemp("page")
    data = folders.episodes(lengths=(30, 40, 50, 60, 45))
    stated = folders.statistics(data)
    data[0][0][7, 1] = np.nan
    data[1][1][20, 0] = 500.0
    path = folders.write(root / "set", data, lambda i: EVIL, "video", stated)
    (root / "set/data/chunk-000/episode_000003.parquet").write_bytes(b"PAR1")
    return looked_at(path)


class Page(html.parser.HTMLParser):
    """Tags and attributes of a page, and its text."""

    void = {"meta", "img"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_text_lists_all(damaged):
    text = page.text(damaged[0])
    lines = text.splitlines()
    assert "episodes  5 (1 unreadable)" in lines and "rate      10 Hz" in lines
    assert "steps     165" in lines and "lengths   30 to 50 steps, median 42.5" in lines
    assert re.search(r"^action +float32 +3 +-[\d.]+ +500 ", text, re.M)
    assert re.search(r"^ +1  elbow +", text, re.M) and "1 outlier" in text
    assert re.search(r"^images.front +64x48 +h264 +4", text, re.M)
    assert re.search(r"^unreadable +1 +3 +.*episode_000003.parquet cannot be read", text, re.M)
    assert re.search(r"^not finite +1 +0 +state \[elbow\] is NaN at step 7", text, re.M)
    assert re.search(r"^outlier +1 +1 +action \[shoulder\] is 500 at step 20", text, re.M)
    assert "\x1b" not in text and "?[31m" in text  # a terminal must not obey the data


def test_text_of_a_sound_folder(tmp_path):
    path = folders.write(tmp_path / "s", folders.episodes())
    found, _ = looked_at(path, 0)
    assert page.text(found).endswith("What is wrong: nothing was found")
    assert "Nothing was found." in page.html(found, [])


def test_html_needs_nothing_else_and_escapes(damaged):
    text = page.html(*damaged)
    read = Page(text)
    sources = [a["src"] for tag, a in read.tags if tag == "img"]
    assert len(sources) == 2 * samples.PICTURES
    assert all(s.startswith("data:image/jpeg;base64,") for s in sources)
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "link", "iframe"} and EVIL[:30] in "".join(read.text)
    links = [v for _, a in read.tags for n, v in a.items() if n in ("href", "src", "onload")]
    assert links == sources
    assert len([1 for tag, a in read.tags if tag == "svg"]) == 2 * 3 + 1


def test_html_without_a_readable_episode(tmp_path):
    path = folders.write(tmp_path / "s", folders.episodes())
    for file in (tmp_path / "s/data/chunk-000").iterdir():
        file.write_bytes(b"")
    found, shown = looked_at(path)
    assert shown == [] and found.steps == 0
    Page(page.html(found, shown))
    assert "3 (3 unreadable)" in page.text(found)


def test_tables_are_cut_with_a_count(tmp_path):
    data = folders.episodes(lengths=(4,) * 15)
    path = folders.write(tmp_path / "s", data, lambda i: f"task {i}" if i else " ")
    for i in range(3, 15):
        (tmp_path / f"s/data/chunk-000/episode_{i:06d}.parquet").write_bytes(b"")
    found, shown = looked_at(path)
    lines = [line.strip() for line in page.text(found).splitlines()]
    assert "and 7 more" in lines and "1  (empty)" in lines
    text = "".join(Page(page.html(found, shown)).text)
    assert "and 2 more" in text and "(empty)" in text


def test_rlds_page(toy_data):
    found, shown = looked_at(toy_data["bad"], hz=5)
    read = Page(page.html(found, shown))
    # Action, state and goal have two numbers each, and there are the lengths; the reward is 1 in
    # the last step only, which is a filler and left out.
    assert len([1 for tag, _ in read.tags if tag == "svg"]) == 3 * 2 + 1
    assert re.search(r"^reward +float32 ", page.text(found), re.M)


# Appended to a copy of the page; the page itself forbids scripts.
_PROBE = """<script>addEventListener("load", () => {
  const out = {
    widths: [...document.images].map(i => i.naturalWidth),
    rows: [...document.querySelectorAll("table")].map(t => t.querySelectorAll("tbody tr").length),
    plots: [...document.querySelectorAll("svg")].map(s => s.getBBox().width),
    wide: document.documentElement.scrollWidth - innerWidth,
  };
  const node = document.createElement("pre");
  node.id = "probe"; node.textContent = JSON.stringify(out); document.body.append(node);
});</script></body>"""


def browse(text, folder):
    """(what the probe saw, lines of the console) of a page in a headless browser."""
    named = os.environ.get("AMBIENT_JAX_BROWSER")
    browser = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser of {', '.join(BROWSERS)} (AMBIENT_JAX_BROWSER)")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)[0]
    pages = {"plain": text}
    pages["probe"] = (
        text.replace(policy, "").replace("</body>", _PROBE).replace("<details>", "<details open>")
    )
    console, dom = [], ""
    for name, content in pages.items():
        file = pathlib.Path(folder) / f"{name}.html"
        file.write_text(content)
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *(f"--user-data-dir={folder}/profile", "--window-size=1300,1000"),
            *("--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"),
            file.as_uri(),
        ]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        console += [line for line in run.stderr.splitlines() if "CONSOLE" in line]
        dom = run.stdout
    seen = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
    assert seen, "the page did not load"
    return json.loads(seen[1]), console


def check_seen(seen, console, pictures, tables):
    assert console == []
    assert len(seen["widths"]) == pictures and all(w > 0 for w in seen["widths"])
    assert len(seen["rows"]) == tables and all(n > 0 for n in seen["rows"])
    assert seen["plots"] and all(w > 100 for w in seen["plots"])
    assert seen["wide"] <= 0  # nothing scrolls sideways


def test_a_browser_shows_the_page(damaged, tmp_path):
    seen, console = browse(page.html(*damaged), tmp_path)
    # Wrong, fields, two of dimensions, cameras, language.
    check_seen(seen, console, 2 * samples.PICTURES, 6)


@pytest.mark.slow
def test_a_browser_tells_a_damaged_picture(damaged, tmp_path):
    """What the test above would miss, if it could not fail."""
    text = page.html(*damaged)
    broken = text.replace("data:image/jpeg;base64,/9j/", "data:image/jpeg;base64,AAAA", 1)
    broken = broken.replace("</main>", "</main><script>throw Error('planted')</script>")
    seen, console = browse(broken, tmp_path)
    assert seen["widths"][0] == 0 and min(seen["widths"][1:]) > 0
    assert any("planted" in line for line in console)
    # The page itself ran no script.
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder, hz, cameras", [("lerobot_v21_g1", None, 1), ("rlds_bridge", 5.0, 3)]
)
def test_a_browser_shows_recorded_data(recorded_data, tmp_path, folder, hz, cameras):
    found, shown = looked_at(recorded_data / folder, 3, hz)
    seen, console = browse(page.html(found, shown), tmp_path)
    texts = len(found.texts)
    check_seen(seen, console, 3 * cameras * samples.PICTURES, 5 + texts)
