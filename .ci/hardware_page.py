"""Print the hardware catalogue as a page: ``hardware_page.py md`` for docs/hardware.md, ``html`` for docs/hardware.html.

Every figure shows its grade, which leads to its source. ``.ci/docs`` writes both pages and ``.ci/docs --check`` compares them.
"""

import re
import sys
from html import escape

from planner.hardware import DeviceProfile, System, list_hardware, load_device, load_hardware
from planner.quantities import Figure

REPOSITORY = re.compile(r"(?<![\w/.])([A-Za-z0-9-]+/[A-Za-z0-9_.-]+)@([0-9a-f]{7})((?: [\w./-]+/[\w./-]+)?)")
ADDRESS = re.compile(r"https?://[^\s;()]+[^\s;().,:]")
DTYPES = ("bf16", "fp16", "fp8", "int8", "fp4", "int4")


class Page:
    """Cells and the numbered list of sources that they lead to."""

    def __init__(self, html: bool) -> None:
        self.html = html
        self.sources: dict[tuple[str, str], int] = {}

    def text(self, value: object) -> str:
        """Plain text for a cell."""
        return escape(str(value)) if self.html else str(value).replace("|", "\\|").replace("<", "&lt;")

    def figure(self, figure: Figure | None, scale: float, suffix: str = "") -> str:
        """The value, its interval and its grade with a link to the source; a dash where there is none."""
        if figure is None:
            return "-"
        number = self.sources.setdefault((figure.source, str(figure.as_of)), len(self.sources) + 1)
        link = f'<a href="#s{number}">{figure.grade}</a>' if self.html else f"[{figure.grade}](#s{number})"
        if not figure.known:
            return f"unknown {link}"
        span = ""
        if figure.low is not None or figure.high is not None:
            span = f" ({figure.lowest / scale:.4g} to {figure.highest / scale:.4g})"
        return f"{figure.value / scale:.4g}{span}{suffix} {link}"

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> str:
        """One table under a heading."""
        if self.html:
            head = "".join(f"<th>{escape(column)}</th>" for column in columns)
            body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<h2>{escape(title)}</h2>\n<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>\n"
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
                items.append(f'<li id="s{number}">{text}</li>')
            else:
                text = ADDRESS.sub(lambda m: f"<{m[0]}>", text)
                text = REPOSITORY.sub(lambda m: f"[{m[0]}]({github(m)})", text)
                items.append(f'{number}. <a id="s{number}"></a>{text}')
        listed = "\n".join(items)
        return f"<h2>Sources</h2>\n<ol>\n{listed}\n</ol>\n" if self.html else f"## Sources\n\n{listed}\n"


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


INTRODUCTION = (
    "Every profile of the built-in catalogue. Peaks are dense, bandwidths one-way, GB are 1e9 bytes, memory is what can be "
    "used of one owner, prices are of the whole system with their basis and date. The letter behind a figure is its grade "
    "(A vendor or measured, B secondary, C derived or announced, D unverified) and leads to its source; the range in "
    "brackets is from the 10th to the 90th percentile of what the true value may be."
)
SCRIPT = """<script>
document.querySelectorAll("th").forEach(head => head.addEventListener("click", () => {
  const table = head.closest("table"), column = [...head.parentNode.children].indexOf(head);
  const up = head.dataset.up = head.dataset.up === "1" ? "0" : "1";
  const value = row => { const text = row.children[column].textContent, n = parseFloat(text); return isNaN(n) ? text : n; };
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  [...table.tBodies[0].rows].sort((a, b) => (up === "1" ? 1 : -1) * order(value(a), value(b)))
    .forEach(row => table.tBodies[0].append(row));
}));
</script>"""
STYLE = "body{font:14px sans-serif}table{border-collapse:collapse}td,th{padding:2px 8px;border:1px solid #ccc}th{cursor:pointer}"


def main() -> None:
    """Write the page to standard output."""
    page = Page(html=sys.argv[1:] == ["html"])
    devices = [device_row(page, load_device(row.id)) for row in list_hardware(kinds=("device",))]
    systems = [load_hardware(row.id).system for row in list_hardware()]
    system_rows = [system_row(page, system) for system in systems]
    peaks = [f"{dtype}, T(FL)OP/s" for dtype in DTYPES]
    columns = ["id", "name", "vendor", "origin", "status", *peaks, "memory", "usable, GB", "read, GB/s", "share of it reached"]
    parts = [page.table("Devices", columns, devices)]
    columns = ["id", "name", "vendor", "origin", "status", "devices", "host memory", "an owner's GB", "read, GB/s", "disk, TB"]
    columns += ["scale-up, GB/s a device", "scale-out, GB/s a device", "power, kW", "price, kUSD", "basis"]
    parts.append(page.table("Systems", columns, system_rows))
    bills = [s for s in systems if s.capex.note.startswith("bill of materials")]
    rows = [[page.text(s.id), f"{s.capex.value:,.0f}", page.figure(s.capex, 1e3), page.text(s.capex.note)] for s in bills]
    parts.append(page.table("Bills of materials", ["id", "USD", "kUSD", "what it is made of"], rows))
    parts.append(page.source_list())
    body = "\n".join(parts)
    if page.html:
        print('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Hardware catalogue</title>')
        print(f"<style>{STYLE}</style></head>\n<body><h1>Hardware catalogue</h1>\n<p>{INTRODUCTION}")
        print(f"A click on a column's head sorts by it.</p>\n{body}\n{SCRIPT}\n</body></html>")
    else:
        print(f"# Hardware catalogue\n\n{INTRODUCTION}\nGenerated; [a version with tables that sort](hardware.html).\n\n{body}")


if __name__ == "__main__":
    main()
