"""How the page about a pile looks, on top of ``data.look.style``."""

STYLE = """
:root { --good: #0f8a63; --bad: #c2410c; --unsure: #cfd6de; --row: #f0f2f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa5b3; --line: #2c343f; --paper: #171c23; --back: #0f1318;
    --good: #35b58a; --bad: #f08a5d; --unsure: #3a444f; --row: #232a33; color-scheme: dark; } }
tbody tr + tr td { border-top-color: var(--row); }
h2 + p, .lead { margin: 0 0 12px; max-width: 76ch; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 18px; }
.two > section { min-width: 0; }
svg { touch-action: pan-y; }
svg text.name { font-size: 11px; fill: var(--ink); }
svg rect { opacity: 1; fill: var(--unsure); }
svg rect.helps { fill: var(--good); } svg rect.harms { fill: var(--bad); }
svg .band { opacity: .15; stroke: none; }
svg polyline { stroke-width: 2; }
svg .cursor { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .dot { stroke: var(--paper); stroke-width: 2; }
.episode { opacity: .6; }
.episode.suspect { stroke: var(--bad); stroke-width: 2; opacity: 1; }
.episode.picked { stroke: var(--ink); stroke-width: 2.5; opacity: 1; r: 7px; }
.overlay polyline { stroke: var(--ink); stroke-width: 2; }
.series, .episode, .chip, tr { transition: opacity .12s; }
.faded { opacity: .13; } .episode.faded { opacity: .06; } tr.faded { opacity: .35; }
tr.picked td { background: var(--row); }
.chips { display: flex; flex-wrap: wrap; gap: 8px; position: sticky; top: 0; z-index: 2;
  padding: 10px 0; background: var(--back); }
.chip { font: inherit; font-size: 13.5px; color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); border-radius: 999px; padding: 4px 13px; cursor: pointer; }
.chip[aria-pressed="true"] { border-color: var(--ink); }
.chip:focus-visible, button:focus-visible { outline: 2px solid #2563eb; outline-offset: 1px; }
#tip { position: fixed; z-index: 9; pointer-events: none; background: var(--paper);
  border: 1px solid var(--line); border-radius: 8px; padding: 7px 11px; font-size: 13px;
  box-shadow: 0 4px 18px rgba(0, 0, 0, .16); max-width: 320px; overflow-wrap: anywhere; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: 0; cursor: pointer; }
th[aria-sort="ascending"] button::after { content: " ▲"; font-size: 9px; }
th[aria-sort="descending"] button::after { content: " ▼"; font-size: 9px; }
.filters { display: flex; flex-wrap: wrap; gap: 12px; align-items: center; margin: 14px 0 10px;
  font-size: 13.5px; }
.filters select, .filters input[type="text"], #more { font: inherit; color: var(--ink);
  background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: 4px 8px; }
.verdict { font-weight: 600; }
.verdict.use { color: var(--good); } .verdict.leave { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 16px; font-size: 13px; color: var(--soft);
  margin-top: 6px; }
.box { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; background: var(--unsure); }
.box.helps { background: var(--good); } .box.harms { background: var(--bad); }
.box.trains { height: 4px; vertical-align: 3px; background: var(--ink); }
code { font-size: 13px; overflow-wrap: anywhere; }
.scroll .word, .scroll .figure { overflow-wrap: normal; white-space: nowrap; }
#plot-strips { overflow-x: auto; } #plot-strips svg { min-width: 620px; }
@media (max-width: 700px) { main { padding: 18px 12px 40px; } section { padding: 14px 12px; } }
"""
