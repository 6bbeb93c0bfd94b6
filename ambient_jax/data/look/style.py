"""How the HTML page looks."""

STYLE = """
:root { --ink: #1c2330; --soft: #64707f; --line: #e3e7ec; --paper: #fff; --back: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 60px; }
header h1 { margin: 0; font-size: 28px; letter-spacing: -.01em; overflow-wrap: anywhere; }
header p { margin: 2px 0 20px; color: var(--soft); overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 18px 0 8px; overflow-wrap: anywhere; }
h3 small, summary small { color: var(--soft); font-weight: 400; margin-left: 6px; }
q { font-weight: 400; color: var(--soft); margin-left: 6px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 12px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; }
.card b { display: block; font-size: 21px; font-weight: 600; white-space: nowrap; }
.card span, .note { color: var(--soft); font-size: 13px; }
.note { margin: 8px 0 0; }
.good { margin: 0; color: #0f7a5c; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; min-width: 50%; }
th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
th, td { padding: 4px 14px 4px 0; vertical-align: top; }
tbody tr + tr td { border-top: 1px solid #f0f2f5; }
.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.word { text-align: left; overflow-wrap: anywhere; }
td.word:first-child { font-weight: 500; white-space: nowrap; }
article + article { border-top: 1px solid var(--line); margin-top: 16px; }
.strip { display: flex; gap: 14px; align-items: center; margin: 8px 0; }
.camera { width: 130px; flex: none; color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.none { color: var(--soft); font-style: italic; font-size: 13px; }
.pictures { display: flex; flex-wrap: wrap; gap: 8px; }
figure { margin: 0; }
img { display: block; height: 112px; width: auto; max-width: 100%; border-radius: 5px;
  background: var(--line); }
figcaption { font-size: 11.5px; color: var(--soft); text-align: center; }
.key { display: flex; gap: 18px; margin: 0 0 8px; font-size: 13.5px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
details { border-top: 1px solid var(--line); padding: 8px 0; }
summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(265px, 1fr));
  gap: 6px 14px; padding-top: 6px; }
svg { max-width: 100%; height: auto; display: block; }
.panels svg { width: 100%; }
svg text { font-size: 10px; fill: var(--soft); }
svg .title { font-size: 11.5px; fill: var(--ink); font-weight: 500; }
svg polyline { fill: none; stroke-width: 1.2; stroke-linejoin: round; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--soft); }
svg rect { fill: #2563eb; opacity: .8; }
"""
