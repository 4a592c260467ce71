"use strict";
const at = (id) => document.getElementById(id);
let running = null;
let saved = null;

const number = (value) => {
  if (value === null || value === undefined) return "-";
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
};

const fill = (body, rows) => {
  body.replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return line;
  }));
};

const say = (text, bad = false) => {
  at("state").textContent = text;
  at("state").classList.toggle("bad", bad);
};

const choose = (select, rows, first) => {
  select.replaceChildren(...rows.map((row) => {
    const option = document.createElement("option");
    option.value = row.id;
    option.textContent = row.id + (row.announced ? " (announced)" : "");
    option.title = row.name;
    option.dataset.announced = row.announced ? "yes" : "";
    return option;
  }));
  if (rows.some((row) => row.id === first)) select.value = first;
};

const asked = () => {
  const body = {
    model: at("model").value,
    hardware: `${at("hardware").value}:${at("count").value}`,
    workload: at("workload").value,
    objective: at("objective").value,
  };
  if (at("ttft").value) body.ttft_s = Number(at("ttft").value) / 1000;
  if (at("tpot").value) body.tpot_s = Number(at("tpot").value) / 1000;
  if (at("hardware").selectedOptions[0].dataset.announced) body.allow_announced = true;
  return body;
};

const show = (text) => {
  const plan = JSON.parse(text);
  const cost = plan.cost.usd_per_million.blended;
  at("verdict").textContent = `${plan.model} on ${plan.hardware}: ${number(cost)} USD per million tokens`;
  const p = plan.prediction;
  fill(at("figures"), [
    ["output, whole deployment", p.output_tokens_per_s, "tokens/s"],
    ["output per device paid for", p.output_tokens_per_s_per_device, "tokens/s"],
    ["speed of one request", p.tokens_per_s_per_user, "tokens/s"],
    ["time to first token, mean", p.ttft_ms, "ms"],
    ["time per output token, mean", p.tpot_ms, "ms"],
  ].map(([name, span, unit]) => [name, number(span.low), number(span.expected), number(span.high), unit]));
  fill(at("pools"), plan.pools.map((pool) => {
    const c = pool.configuration;
    return [pool.phase, pool.hardware, pool.replicas, pool.devices, c.tp, c.attention_dp, c.ep, c.pp, c.batch_per_rank || "-"];
  }));
  fill(at("placement"), plan.pools.flatMap((pool) => pool.placement.map((row) => [
    pool.phase, row.item, row.tier, number(row.share), number(row.max_bytes_per_device / 1e9),
  ])));
  const c = plan.certificate;
  const word = c.proved ? "Proved against the model, not the machine" : `Not proved${c.stopped ? ` (${c.stopped})` : ""}`;
  at("proof").textContent = `${word}: no plan of the declared space is better by more than ${number(100 * c.gap)} %.`;
  at("plan").value = text;
  if (saved) URL.revokeObjectURL(saved);
  saved = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  at("save").href = saved;
  at("found").hidden = false;
};

const why = async (response) => {
  const text = await response.text();
  try {
    const said = JSON.parse(text);
    const rows = (said.conflict || []).map((row) => `${row.member}: ${row.detail}; ${row.least_relief}`);
    return [said.message, ...rows].join("\n");
  } catch {
    return `${response.status} ${text.slice(0, 200)}`;
  }
};

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  running = new AbortController();
  at("go").disabled = true;
  at("stop").disabled = false;
  at("found").hidden = true;
  say("planning …");
  try {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("/plan", { method: "POST", headers, body: JSON.stringify(asked()), signal: running.signal });
    if (response.ok) {
      show(await response.text());
      say("");
    } else {
      say(await why(response), true);
    }
  } catch (error) {
    say(error.name === "AbortError" ? "stopped" : `the service does not answer (${error.message})`, error.name !== "AbortError");
  } finally {
    at("go").disabled = false;
    at("stop").disabled = true;
  }
});
at("stop").addEventListener("click", () => running.abort());

(async () => {
  try {
    const response = await fetch("/catalogue");
    if (!response.ok) return say(await why(response), true);
    const names = await response.json();
    choose(at("model"), names.models, "deepseek-v3");
    choose(at("hardware"), names.hardware, "h800-node");
    choose(at("workload"), names.workloads, "interactive");
    if (at("hardware").value === "h800-node") at("count").value = 2;
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    say(`the service does not answer (${error.message})`, true);
  }
})();
