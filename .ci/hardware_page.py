"""Print the hardware catalogue as a page: ``hardware_page.py md`` for docs/hardware.md, ``html`` for docs/hardware.html.

Every figure shows its grade, which leads to its source. ``.ci/docs`` writes both pages and ``.ci/docs --check`` compares them.
"""

import re
import sys
from html import escape

from planner.hardware import (
    DeviceProfile,
    HardwareSummary,
    InterconnectPart,
    MemoryPart,
    Site,
    System,
    list_hardware,
    load_device,
    load_hardware,
    load_part,
    load_site,
)
from planner.quantities import Figure, plain

REPOSITORY = re.compile(r"(?<![\w/.])([A-Za-z0-9-]+/[A-Za-z0-9_.-]+)@([0-9a-f]{7})((?: [\w./-]+/[\w./-]+)?)")
OWNERS = "ai-dynamo|deepseek-ai|FlagOpen|jax-ml|JiusiServe|mlcommons|NVIDIA|pricify-ai|scale-snu|SemiAnalysisAI|sgl-project"
OWNERS += "|stas00|vllm-project|wangzy0327|ying-wen"
NAMED = re.compile(rf"(?<![\w/.>\[-])((?:{OWNERS})/[\w-]+(?:\.[\w-]+)*)(?![\w@-])")
"""A repository on GitHub that a source names without a commit."""
ADDRESS = re.compile(r"https?://[^\s;()]+[^\s;().,:]")
MARKDOWN = re.compile(r"[\\|\[\]]")
"""Characters that end a cell or begin a link in Markdown."""
DTYPES = ("bf16", "fp16", "fp8", "int8", "fp4", "int4")


class Page:
    """Cells and the numbered list of sources that they lead to."""

    def __init__(self, html: bool) -> None:
        self.html = html
        self.sources: dict[tuple[str, str], int] = {}

    def text(self, value: object) -> str:
        """Plain text for a cell."""
        return escape(str(value)) if self.html else MARKDOWN.sub(r"\\\g<0>", str(value)).replace("<", "&lt;")

    def figure(self, figure: Figure | None, scale: float, suffix: str = "") -> str:
        """The value, its interval and its grade with a link to the source; a dash where there is none."""
        if figure is None:
            return "-"
        number = self.sources.setdefault((figure.source, str(figure.as_of)), len(self.sources) + 1)
        grade = figure.grade if figure.known else "?"
        link = f'<a href="#s{number}">{grade}</a>' if self.html else f"[{grade}](#s{number})"
        if not figure.known:
            return f"unknown {link}"
        span = ""
        if figure.low is not None or figure.high is not None:
            span = f" ({short(figure.lowest / scale)} to {short(figure.highest / scale)})"
        return f"{short(figure.value / scale)}{span}{suffix} {link}"

    def exact(self, figure: Figure) -> str:
        """All digits of the value, and its grade with a link to the source."""
        text = self.figure(figure, 1.0)
        return f"{figure.value:,.0f} {text[text.rindex('<a' if self.html else '[') :]}"

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> str:
        """One table under a heading."""
        if self.html:
            head = "".join(f'<th tabindex="0">{escape(column)}</th>' for column in columns)
            body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
            table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
            return f'<h2>{escape(title)}</h2>\n<div class="wide">{table}</div>\n'
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        return f"## {title}\n\n" + "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"

    def source_list(self) -> str:
        """All sources in the order of their numbers."""
        items = []
        for (source, as_of), number in self.sources.items():
            text = self.text(f"{source} ({as_of})")
            if self.html:
                text = ADDRESS.sub(lambda m: f'<a href="{m[0]}">{m[0]}</a>', text)
                text = REPOSITORY.sub(lambda m: f'<a href="{github(m)}">{m[0]}</a>', text)
                text = NAMED.sub(lambda m: f'<a href="https://github.com/{m[1]}">{m[1]}</a>', text)
                items.append(f'<li id="s{number}">{text}</li>')
            else:
                text = ADDRESS.sub(lambda m: f"<{m[0]}>", text)
                text = REPOSITORY.sub(lambda m: f"[{m[0]}]({github(m)})", text)
                text = NAMED.sub(lambda m: f"[{m[1]}](https://github.com/{m[1]})", text)
                items.append(f'{number}. <a id="s{number}"></a>{text}')
        listed = "\n".join(items)
        return f"<h2>Sources</h2>\n<ol>\n{listed}\n</ol>\n" if self.html else f"## Sources\n\n{listed}\n"


def own(*kinds: str) -> list[HardwareSummary]:
    """The profiles of the built-in catalogue, those of installed packs left out."""
    return list_hardware(kinds=kinds, packs=False)


def short(value: float) -> str:
    """Four digits, or whole thousands, without an exponent."""
    return plain(value)


def github(found: re.Match[str]) -> str:
    """The address of ``owner/name@commit path``."""
    path = found[3].strip()
    return f"https://github.com/{found[1]}/" + (f"blob/{found[2]}/{path}" if path else f"tree/{found[2]}")


def device_row(page: Page, device: DeviceProfile) -> list[str]:
    """One row of the table of devices."""
    memory = device.memory[0]
    peaks = [page.figure(device.compute[d].peak if d in device.compute else None, 1e12) for d in DTYPES]
    return [
        page.text(device.id),
        page.text(device.name),
        page.text(device.vendor),
        device.origin,
        device.status,
        *peaks,
        memory.kind,
        page.figure(memory.usable, 1e9),
        page.figure(memory.read, 1e9),
        page.figure(memory.efficiency, 1.0),
    ]


def system_row(page: Page, system: System) -> list[str]:
    """One row of the table of systems."""
    host = next((tier for tier in system.tiers if tier.role == "host"), None)
    disk = next((tier for tier in system.tiers if tier.role == "disk"), None)
    inner = next((domain for domain in system.domains if domain.devices is not None), None)
    outer = next((domain for domain in system.domains if domain.devices is None), None)
    width = f" x {inner.devices}" if inner else ""
    return [
        page.text(system.id),
        page.text(system.name),
        page.text(system.vendor),
        system.origin,
        system.status,
        f"{system.devices} x {page.text(system.device.id)}",
        f"{host.kind}, {host.devices_sharing} share it" if host else "-",
        page.figure(host and host.usable, 1e9),
        page.figure(host and host.read, 1e9),
        page.figure(disk and disk.usable, 1e12),
        page.figure(inner and inner.bandwidth, 1e9, width),
        page.figure(outer and outer.bandwidth, 1e9),
        page.figure(system.power, 1e3),
        page.figure(system.capex, 1e3),
        f"{system.capex_basis}, {system.capex.as_of}",
    ]


def memory_row(page: Page, part: MemoryPart) -> list[str]:
    """One row of the table of memories, all figures of one unit."""
    prices = sorted(part.prices, key=lambda price: str(price.usd_per_gb.as_of), reverse=True)
    shown = [f"{page.figure(p.usd_per_gb, 1.0)}, {p.basis}, {p.usd_per_gb.as_of}" for p in prices]
    return [
        page.text(part.id),
        page.text(part.name),
        page.text(part.vendor),
        part.origin,
        part.status,
        page.figure(part.usable, 1e9),
        page.figure(part.read, 1e9),
        page.figure(part.write, 1e9),
        page.figure(part.iops, 1e6),
        page.figure(part.latency, 1e-6),
        page.figure(part.energy, 1e-12),
        page.figure(part.power, 1.0),
        page.figure(part.dwpd, 1.0),
        "; ".join(shown) or "-",
    ]


def interconnect_row(page: Page, part: InterconnectPart) -> list[str]:
    """One row of the table of interconnects, one-way figures of one device."""
    return [
        page.text(part.id),
        page.text(part.name),
        page.text(part.vendor),
        part.origin,
        part.status,
        part.topology,
        page.figure(part.bandwidth, 1e9),
        page.figure(part.latency, 1e-6),
        page.figure(part.efficiency, 1.0),
        page.figure(part.allreduce_efficiency, 1.0),
        page.figure(part.alltoall_efficiency, 1.0),
        page.figure(part.p2p_efficiency, 1.0),
    ]


def site_row(page: Page, site: Site) -> list[str]:
    """One row of the table of sites."""
    figures = [page.figure(site.electricity, 1.0), page.figure(site.pue, 1.0), page.figure(site.life, 1.0)]
    return [page.text(site.id), page.text(site.name), site.origin, page.text(site.region), *figures]


PARTS = (
    (
        *("Memories, one unit", "memory", load_part, memory_row),
        ["id", "name", "vendor", "origin", "status", "usable, GB", "read, GB/s", "write, GB/s", "MIOPS", "latency, us"]
        + ["pJ/bit", "power, W", "writes a day", "USD/GB, basis, date"],
    ),
    (
        *("Interconnects, one device", "interconnect", load_part, interconnect_row),
        ["id", "name", "vendor", "origin", "status", "topology", "one-way, GB/s", "latency, us", "one stream reaches"]
        + ["all-reduce", "all-to-all", "one peer"],
    ),
    (
        *("Sites", "site", load_site, site_row),
        ["id", "name", "origin", "region", "USD/kWh", "PUE", "life, years"],
    ),
)

INTRODUCTION = (
    "Every profile of the built-in catalogue. Peaks are dense, bandwidths one-way, GB are 1e9 bytes, memory is what can be "
    "used of one owner, prices are of the whole system with their basis and date. The letter behind a figure is its grade "
    "(A vendor or measured, B secondary, C derived or announced, D unverified, ? not known) and leads to its source; the "
    "range in brackets is from the 10th to the 90th percentile of what the true value may be."
)
LEFT_OUT = (
    (
        "Cerebras WSE-3, Groq LPU, Groq 3 LPU and the LPX rack",
        "on-chip SRAM is their only memory and the weights are spread over "
        "hundreds of chips by a compiler; the model here of one memory that matrix products stream from would say nothing true",
    ),
    ("NVIDIA Rubin CPX", "taken off the roadmap at GTC 2026"),
    ("Google TPU v5p", "no memory or network figures were read"),
    ("Huawei Ascend 910B1", "no source was read"),
    ("Iluvatar TianGai 300", "announced in July 2026 without a number"),
    (
        "Tianchi 256 and 512, MetaX S600 and Shanghai Cube, Panjiu AL128, Biren's 1024-card and Iluvatar's 144-card systems",
        "their sizes are known and no bandwidth of the network is",
    ),
    (
        "int8 on the Intel Gaudi 3",
        "the vendor's paper gives bf16 and fp8; a secondary table repeats the fp8 figure for int8",
    ),
)
"""What the catalogue does not have, and why."""
SCRIPT = """<script>
const sort = head => {
  const table = head.closest("table"), column = [...head.parentNode.children].indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  [...head.parentNode.children].forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => {
    const text = row.children[column].textContent.trim();
    if (text === "-" || /^unknown/.test(text)) return null;
    return /^-?[\\d.,]+(e[+-]?\\d+)?( |$)/.test(text) ? parseFloat(text.replace(/,/g, "")) : text;
  };
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  [...table.tBodies[0].rows].map((row, place) => ({row, place, key: value(row)}))
    .sort((a, b) => (a.key === null) - (b.key === null) || (up ? 1 : -1) * order(a.key, b.key) || a.place - b.place)
    .forEach(item => table.tBodies[0].append(item.row));
};
document.querySelectorAll("th").forEach(head => {
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(head); });
});
</script>"""
STYLE = (
    "body{font:14px sans-serif;margin:1em}table{border-collapse:collapse}td,th{padding:2px 8px;border:1px solid #ccc}"
    "th{cursor:pointer}th[aria-sort=ascending]:after{content:' \\2191'}th[aria-sort=descending]:after{content:' \\2193'}"
    ".wide{overflow-x:auto}th:first-child,td:first-child{position:sticky;left:0;background:#fff}li{overflow-wrap:anywhere}"
    "@media(max-width:600px){body{font-size:13px;margin:.5em}td,th{padding:2px 4px}"
    "td:nth-child(2),th:nth-child(2){min-width:9em}}"
)


def main() -> None:
    """Write the page to standard output."""
    page = Page(html=sys.argv[1:] == ["html"])
    devices = [device_row(page, load_device(row.id)) for row in own("device")]
    systems = [load_hardware(row.id).system for row in own("node", "rack")]
    system_rows = [system_row(page, system) for system in systems]
    peaks = [f"{dtype}, T(FL)OP/s" for dtype in DTYPES]
    columns = ["id", "name", "vendor", "origin", "status", *peaks, "memory", "usable, GB", "read, GB/s", "share of it reached"]
    parts = [page.table("Devices", columns, devices)]
    columns = ["id", "name", "vendor", "origin", "status", "devices", "host memory", "an owner's GB", "read, GB/s", "disk, TB"]
    columns += ["scale-up, GB/s a device", "scale-out, GB/s a device", "power, kW", "price, kUSD", "basis"]
    parts.append(page.table("Systems", columns, system_rows))
    bills = [s for s in systems if s.capex.note.startswith("bill of materials")]
    rows = [[page.text(s.id), page.exact(s.capex), page.figure(s.capex, 1e3), page.text(s.capex.note)] for s in bills]
    parts.append(page.table("Bills of materials", ["id", "USD", "kUSD", "what it is made of"], rows))
    left_out = [[page.text(name), page.text(reason)] for name, reason in LEFT_OUT]
    parts.append(page.table("Left out", ["what", "why"], left_out))
    for title, kind, load, row_of, heads in PARTS:
        parts.append(page.table(title, heads, [row_of(page, load(row.id)) for row in own(kind)]))
    parts.append(page.source_list())
    body = "\n".join(parts)
    if page.html:
        print(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Hardware catalogue</title>'
        )
        print(f"<style>{STYLE}</style></head>\n<body><h1>Hardware catalogue</h1>\n<p>{INTRODUCTION}")
        print(f"A click on a column's head sorts by it.</p>\n{body}\n{SCRIPT}\n</body></html>")
    else:
        print(f"# Hardware catalogue\n\n{INTRODUCTION}\nGenerated; [a version with tables that sort](hardware.html).\n\n{body}")


if __name__ == "__main__":
    main()
