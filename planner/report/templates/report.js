"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const charts = [...document.querySelectorAll("[data-chart]")];
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true, showTips: false, showAxisDragHandles: false };
  const NARROW = 430;

  // Figures name the style sheet's variables; the theme that is on gives them their colours.
  function resolved(value, style) {
    if (typeof value === "string") {
      const named = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return named ? style.getPropertyValue(named[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((one) => resolved(one, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, resolved(one, style)]));
    return value;
  }

  // "efficiency of expert matrices" on lines of at most so many characters.
  function wrapped(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const last = lines[lines.length - 1];
      if (last && last.length + word.length >= most) lines.push(word);
      else lines[lines.length - 1] = last ? `${last} ${word}` : word;
    }
    return lines.join("<br>");
  }

  // On a phone: smaller type, lines that wrap, and no labels where there is no room; the table below has them all.
  function narrowed(trace, layout) {
    if (trace.type === "bar") {
      const names = [...new Set(trace.y)];
      Object.assign(layout.yaxis, { tickmode: "array", tickvals: names, ticktext: names.map((name) => wrapped(name, 17)) });
      if (trace.text) {
        trace.textposition = "none";
        delete layout.xaxis.range;
      }
    } else if (trace.type === "sankey") {
      trace.node.label = trace.node.label.map((label) => label.split(": ")[0]);
    } else if (trace.type === "heatmap") {
      trace.colorbar.title.text = "";
      layout.xaxis.nticks = 6;
    }
  }

  function fitted(figure, width) {
    figure.layout.font.family = getComputedStyle(document.body).fontFamily;
    if (width < NARROW) {
      figure.layout.font.size = 11;
      for (const trace of figure.data) narrowed(trace, figure.layout);
    }
    return figure;
  }

  function draw(element, style) {
    const figure = fitted(resolved(figures[element.dataset.chart], style), element.clientWidth);
    return Plotly.react(element, figure.data, figure.layout, config);
  }

  function drawAll() {
    const style = getComputedStyle(root);
    return Promise.all(charts.map((element) => draw(element, style)));
  }

  function afresh() {
    for (const element of charts) Plotly.purge(element);
    return drawAll();
  }

  // plotly.js follows the width; what is written narrower is drawn anew.
  const narrow = () => charts.length > 0 && charts[0].clientWidth < NARROW;
  let was = narrow();
  window.addEventListener("resize", () => {
    if (narrow() !== was) {
      was = narrow();
      afresh();
    }
  });

  // Theme: the system's until the button says otherwise.
  const button = document.getElementById("theme");
  let chosen = null;
  const dark = () => (chosen === null ? system.matches : chosen === "dark");
  function dress() {
    if (chosen) root.dataset.theme = chosen;
    button.setAttribute("aria-pressed", String(dark()));
    return drawAll();
  }
  button.addEventListener("click", () => {
    chosen = dark() ? "light" : "dark";
    dress();
  });
  system.addEventListener("change", dress);

  // Sources: words and grades.
  const words = document.getElementById("words");
  const grades = [...document.querySelectorAll("[name=grade]")];
  const count = document.getElementById("count");
  const rows = (id) => [...document.querySelectorAll(`#${id} tbody tr`)];
  const lists = { sources: rows("source-table"), estimates: rows("estimate-table") };
  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = new Set(grades.filter((box) => box.checked).map((box) => box.value));
    const left = {};
    for (const [name, list] of Object.entries(lists)) {
      left[name] = 0;
      for (const row of list) {
        const text = row.textContent.toLowerCase();
        row.hidden = !(shown.has(row.dataset.grade) && wanted.every((word) => text.includes(word)));
        left[name] += row.hidden ? 0 : 1;
      }
    }
    count.textContent = `${left.sources} of ${lists.sources.length} sources, ${left.estimates} of ${lists.estimates.length} estimates`;
  }
  words.addEventListener("input", filter);
  for (const box of grades) box.addEventListener("change", filter);
  document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());

  // Command.
  const copied = document.getElementById("copied");
  document.getElementById("copy").addEventListener("click", async () => {
    const code = document.getElementById("command-text");
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(code);
      copied.textContent = "Selected; press Ctrl+C to copy.";
    }
  });

  // Print: light, and charts as wide as the paper. Drawn anew, since what is redrawn would still be moving on the paper.
  for (const [event, printing] of [["beforeprint", true], ["afterprint", false]])
    window.addEventListener(event, () => {
      root.classList.toggle("printing", printing);
      afresh();
    });

  dress().then(() => {
    root.dataset.drawn = String(charts.length);
  });
})();
