"""The page in a browser: the pointer really changes it, and it runs under its own policy."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from ambient_jax.annotate.pile import page as pile_page
from ambient_jax.annotate.pile import script as pile_script
from tests.annotate.pile import piles
from tests.data.look.test_page import BROWSERS

# Moves the pointer as a user would, and writes down what the page shows.
_HAND = """
const seen = {};
const move = (node, type, x, y) => node.dispatchEvent(
  new PointerEvent(type, { clientX: x, clientY: y, bubbles: type === "pointermove" }));
const over = (id, fx, fy) => {
  const svg = document.querySelector(`#${id} svg`);
  const box = svg.getBoundingClientRect();
  move(svg, "pointermove", box.left + fx * box.width, box.top + fy * box.height);
  const tip = document.getElementById("tip");
  const said = tip.hidden ? "" : tip.innerText;
  const faded = new Set([...document.querySelectorAll(".faded")].map((n) => n.dataset.set));
  const everywhere = ["plot-gain", "plot-strips", "plot-clean", "rows"].map(
    (p) => document.querySelectorAll(`#${p} .lit`).length > 0);
  return { said, faded: [...faded], everywhere };
};
addEventListener("error", (event) => { seen.error = event.message; });
addEventListener("load", () => {
  seen.before = document.querySelectorAll(".faded").length;
  seen.low = over("plot-gain", 0.2, 0.9);
  seen.high = over("plot-gain", 0.9, 0.05);
  move(document.querySelector("#plot-gain svg"), "pointerleave", 0, 0);
  seen.after = [document.querySelectorAll(".faded").length, document.getElementById("tip").hidden];
  const worst = document.querySelector("#plot-episodes circle.suspect");
  const at = worst.getBoundingClientRect();
  move(worst, "pointermove", at.left + at.width / 2, at.top + at.height / 2);
  seen.episode = document.getElementById("tip").innerText;
  seen.picked = document.querySelectorAll("tr.picked, circle.picked").length;
  seen.overlays = document.querySelectorAll(".overlay polyline").length;
  move(document.querySelector("#plot-episodes svg"), "pointerleave", 0, 0);
  const column = (k) => [...document.querySelectorAll("#rows tr")].map((r) => r.cells[k].innerText);
  const click = (k) => document.querySelectorAll("#head button")[k].click();
  click(2); seen.longest = column(2).map(Number);
  click(2); seen.shortest = column(2).map(Number);
  const filter = document.getElementById("filter-suspect");
  filter.checked = true; filter.dispatchEvent(new Event("input"));
  seen.suspects = column(7);
  const choice = document.getElementById("filter-set");
  choice.value = "turned"; choice.dispatchEvent(new Event("input"));
  filter.checked = false; filter.dispatchEvent(new Event("input"));
  seen.sets = [...new Set(column(0))];
  document.querySelector(".chip").click();
  seen.pinned = [...new Set([...document.querySelectorAll(".faded")].map((n) => n.dataset.set))];
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  const node = document.createElement("pre");
  node.id = "seen"; node.textContent = JSON.stringify(seen); document.body.append(node);
});
"""


@pytest.fixture(scope="module")
def results():
    return piles.results()


def browse(text, folder, size="1300,1000", hand=_HAND):
    """(what the hand saw, lines of the console) of a page in a headless browser."""
    named = os.environ.get("AMBIENT_JAX_BROWSER")
    browser = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser of {', '.join(BROWSERS)} (AMBIENT_JAX_BROWSER)")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)[0]
    if hand:
        text = text.replace(policy, "").replace("</body>", f"<script>{hand}</script></body>")
    file = pathlib.Path(folder) / "page.html"
    file.write_text(text)
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *(f"--user-data-dir={folder}/profile", f"--window-size={size}"),
        *("--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"),
        file.as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    seen = re.search(r'<pre id="seen">(.*?)</pre>', run.stdout, re.S)
    return (json.loads(seen[1].replace("&gt;", ">")) if seen else {}), console, run.stdout


def test_pointing_changes_the_page(results, tmp_path):
    seen, console, _ = browse(pile_page.html(results), tmp_path)
    assert console == [] and "error" not in seen and seen["before"] == 0
    # Low on the left is the curve of "shaky", at the top that of "turned".
    assert seen["low"]["said"].startswith("shaky\nsigma 0.0") and "to " in seen["low"]["said"]
    assert re.search(r"loss 3\d\.?\d*% \(3", seen["low"]["said"])
    assert seen["high"]["said"].startswith("turned\nsigma 0.9")
    assert seen["low"]["faded"] == ["turned"] and seen["high"]["faded"] == ["shaky"]
    assert all(seen["low"]["everywhere"])  # in the other plots and the table, too
    assert seen["after"] == [0, True]
    assert "stands out" in seen["episode"] and "influence -" in seen["episode"]
    assert seen["picked"] == 3 and seen["overlays"] == 2
    assert seen["longest"] == sorted(seen["longest"], reverse=True)
    assert seen["shortest"] == sorted(seen["shortest"]) and len(seen["shortest"]) == 60
    assert set(seen["suspects"]) == {"yes"} and seen["sets"] == ["turned"]
    assert seen["pinned"] == ["turned"] and seen["wide"] <= 0


@pytest.mark.slow
def test_the_page_runs_under_its_policy_and_fits_a_phone(results, tmp_path):
    text = pile_page.html(results)
    _, console, dom = browse(text, tmp_path, hand="")
    assert console == [] and dom.count("<circle") > 60 and "60 of 60 episodes" in dom
    planted = text.replace("</body>", "<script>document.title = 'planted'</script></body>")
    _, console, dom = browse(planted, tmp_path, hand="")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>planted" not in dom
    seen, _, _ = browse(text, tmp_path, "500,900")
    assert seen["wide"] <= 0


def test_page_needs_nothing_else_and_escapes(results):
    evil = piles.results(names=("shaky",), folder="</script><script>alert(1)</script>")
    text = pile_page.html(evil)
    assert text.count("<script") == 2 and "http" not in re.sub(
        r"http-equiv|www.w3.org|http://", "", text
    )
    assert "link" not in re.findall(r"<(\w+)", text) and "img" not in re.findall(r"<(\w+)", text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert [s["name"] for s in data["sets"]] == ["shaky"] and len(data["episodes"]) == 30
    assert pile_script.SCRIPT in text and pile_page.html(results) == pile_page.html(piles.results())


def test_one_data_set_without_a_learning_curve(results):
    import dataclasses

    one = dataclasses.replace(
        results,
        curve=None,
        everything=None,
        findings=(dataclasses.replace(results.findings[0], worth=None),),
    )
    text = pile_page.html(one)
    assert '"worth":null' in text and 'id="plot-worth"' not in text
    assert "unknown: too few clean episodes" in pile_page.text(one)


def test_table_of_the_terminal(results):
    text = pile_page.text(results)
    assert re.search(r"\| shaky +\| 30 +\| use it above sigma 0\.\d+ +\| -8\.\d%", text)
    assert re.search(r"\| turned +\| 30 +\| leave it out: it harms +\|", text)
