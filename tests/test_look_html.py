# SPDX-License-Identifier: GPL-2.0-only
"""HTML reports as headless Chromium shows them: narrow and wide, light and dark, without scripts.

A page of ours has the report in a frame in which no script runs, looks at it from outside, and
leaves what it found in its own text.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_report_html import HOSTILE, a_run

from harness.report.html import html_report

SECONDS = 120
NARROW, WIDE = 390, 1440
# WCAG 2.2, success criterion 1.4.3: what small text needs at least.
CONTRAST = 4.5
WATCHER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" sandbox="allow-same-origin" src="report.html"
 style="border:0;width:WIDTHpx;height:HEIGHTpx"></iframe><pre id="found"></pre><script>
const numbers = colour => (colour.match(/[0-9.]+/g) || [0, 0, 0, 0]).map(Number);
function behind(element) {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.5) return colour;
  }
  return [255, 255, 255];
}
function light(colour) {
  const [r, g, b] = colour.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(element) {
  const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
const hasText = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
function scrolls(element) {
  for (; element; element = element.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX)) return true;
  return false;
}
const named = e => `${e.tagName.toLowerCase()}.${e.getAttribute("class") || ""}`;
onload = () => {
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  const folded = [...page.querySelectorAll("details")];
  const before = root.scrollHeight;
  folded.forEach(one => { one.open = true; });
  const all = [...page.body.querySelectorAll("*")].filter(e => e.getClientRects().length);
  const out = all.filter(e => e.getBoundingClientRect().right > root.clientWidth + 1);
  const dim = all.filter(e => !e.closest("svg") && hasText(e) && contrast(e) < CONTRAST);
  document.getElementById("found").textContent = JSON.stringify({
    scroll: root.scrollWidth, client: root.clientWidth, before, after: root.scrollHeight,
    folded: folded.length, shown: all.length,
    out: [...new Set(out.filter(e => !scrolls(e)).map(named))],
    dim: [...new Set(dim.map(named))],
    background: getComputedStyle(page.body).backgroundColor,
    asked: document.getElementById("page").contentWindow.performance
      .getEntriesByType("resource").map(e => e.name),
  });
};
</script>"""


def chromium(folder: Path, scheme: str, *options: str) -> str:
    """What Chromium prints about the watcher's page, in a dark scheme or a light one."""
    argv = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--allow-file-access-from-files", "--virtual-time-budget=10000"),
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        *options,
        (folder / "watcher.html").as_uri(),
    ]
    # An address where nobody listens: whatever it wants to fetch, it cannot.
    argv.insert(1, "--proxy-server=127.0.0.1:9")
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=SECONDS)
    return done.stdout


def look(folder: Path, width: int, scheme: str, name: str) -> dict[str, Any]:
    """Open report.html of the folder that wide; keep a picture, return what the watcher found."""
    text = WATCHER.replace("WIDTH", str(width)).replace("CONTRAST", str(CONTRAST))
    height = 2400
    (folder / "watcher.html").write_text(text.replace("HEIGHT", str(height)))
    pictures = Path(os.environ.get("LOOK_PICTURES") or folder)
    picture = pictures / f"{name}-{width}-{scheme}.png"
    chromium(folder, scheme, f"--screenshot={picture}", f"--window-size={width},{height}")
    assert picture.stat().st_size
    found = re.search(r'<pre id="found">(.+?)</pre>', chromium(folder, scheme, "--dump-dom"))
    assert found, "the watcher found nothing"
    print(f"picture: {picture}")
    value: dict[str, Any] = json.loads(unescape(found[1]))
    return value


@pytest.mark.look
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("text", ["", HOSTILE], ids=["plain", "hostile"])
def test_a_report_can_be_read(tmp_path: Path, text: str, width: int, scheme: str) -> None:
    (tmp_path / "report.html").write_text(html_report(a_run(tmp_path, text), tmp_path))
    name = "hostile" if text else "plain"
    found = look(tmp_path, width, scheme, name)
    assert found["client"] == width and found["shown"] > 100
    assert found["scroll"] == width and not found["out"], "it sticks out of the page"
    assert not found["dim"], f"text of a contrast below {CONTRAST}"
    assert found["folded"] and found["after"] > found["before"], "what is folded does not unfold"
    dark = sum(map(int, re.findall(r"\d+", found["background"])[:3])) < 3 * 128
    assert dark == (scheme == "dark")
    assert not found["asked"]


@pytest.mark.look
def test_the_watcher_sees_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(
        "<!doctype html><style>body { background: #fff; color: #fff }</style>"
        '<p class="dim">white on white</p><div class="out" style="width: 2000px">wide</div>'
        '<img src="http://127.0.0.1:9/absent.png">'
    )
    found = look(tmp_path, NARROW, "light", "wrong")
    assert found["scroll"] > NARROW and found["out"] == ["div.out"]
    assert "p.dim" in found["dim"]
    assert len(found["asked"]) == 1
