"""The look of the report: one style sheet, light and dark, narrow and wide."""

__all__ = ["CSS"]

CSS = """
:root {
  color-scheme: light dark;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --paper: #f6f6f3; --card: #ffffff; --ink: #1d2129; --muted: #646b76; --line: #e2e2dc;
  --floor: #8a8f98; --control: #b07a1e; --pretrained: #1f6fb2;
  --good: #24744a; --bad: #b3372b; --alarm: #a3261b; --alarm-paper: #fdecea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1c1f25; --ink: #e6e7ea; --muted: #9aa1ac; --line: #30343c;
    --floor: #8d939e; --control: #d9a441; --pretrained: #62a8e5;
    --good: #63c08d; --bad: #ec8177; --alarm: #ff9d92; --alarm-paper: #3a1d1a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font);
  -webkit-text-size-adjust: 100%; overflow-wrap: anywhere; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header h1 { font-size: 1rem; font-weight: 600; margin: 0; color: var(--muted); }
header .verdict { font-size: clamp(1.5rem, 4.5vw, 2.3rem); line-height: 1.22; font-weight: 650;
  letter-spacing: -.015em; margin: .5rem 0 .8rem; max-width: 36ch; text-wrap: balance; }
header .more { max-width: 68ch; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; letter-spacing: -.01em; margin: 3rem 0 .4rem; }
h3 { font-size: 1.02rem; margin: 0; }
h3 .small { font-weight: 400; }
p.note, .small { color: var(--muted); font-size: .875rem; max-width: 75ch; }
p.note { margin: .2rem 0 1rem; }
.alarm { background: var(--alarm-paper); color: var(--alarm); border-left: 4px solid currentColor;
  border-radius: 6px; padding: .8rem 1rem; margin: 1.4rem 0; font-weight: 550; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); gap: .8rem; margin: 1.6rem 0 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: .85rem 1rem .9rem; }
.tile .what { font-size: .875rem; color: var(--muted); }
.tile .big { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.tile .big small { font-size: .95rem; font-weight: 450; color: var(--muted); }
.tile .chip { font-size: .8rem; font-weight: 600; }
.better { color: var(--good); } .worse { color: var(--bad); } .unclear { color: var(--muted); }
.card { padding: 1.1rem 1.2rem; margin: 0 0 1rem; }
.target { display: grid; grid-template-columns: minmax(0, 11fr) minmax(0, 8fr); gap: .4rem 1.6rem; align-items: start; }
.target.alone { grid-template-columns: minmax(0, 1fr); }
.target h3 { grid-column: 1 / -1; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); gap: 1rem;
  align-items: start; }
svg { display: block; width: 100%; max-width: 430px; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; overflow-wrap: normal; vertical-align: bottom; font-weight: 550;
  color: var(--muted); font-size: .8rem; }
th, td { padding: .26rem .9rem .26rem 0; }
td { vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td.method { overflow-wrap: break-word; min-width: 7.5rem; }
thead th { border-bottom: 1px solid var(--line); }
tr.group th { padding-top: .8rem; text-transform: none; font-weight: 650; }
tr.group.floor th { color: var(--floor); } tr.group.control th { color: var(--control); }
tr.group.pretrained th { color: var(--pretrained); }
tr.best td { font-weight: 700; }
td small { color: var(--muted); font-weight: 400; }
.key { display: inline-block; width: .62rem; height: .62rem; border-radius: 50%; margin-right: .3rem; }
.legend { color: var(--muted); font-size: .875rem; display: flex; flex-wrap: wrap;
  gap: .2rem 1.2rem; margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: minmax(6.5rem, max-content) 1fr; gap: .3rem 1.2rem; margin: 0;
  font-size: .92rem; }
dt { color: var(--muted); } dd { margin: 0; }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; }
@media (max-width: 720px) {
  main { padding: 1.6rem .9rem 3rem; }
  .target { grid-template-columns: minmax(0, 1fr); }
  .card { padding: .9rem; }
  table { font-size: .84rem; } th, td { padding-right: .7rem; }
  td.method { min-width: 5rem; }
  .optional { display: none; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .6rem; }
  .tile { padding: .7rem .8rem; }
  .tile .big small { display: block; font-size: .85rem; }
}
@media print { body { background: none; } .card, .tile { break-inside: avoid; } }
"""
