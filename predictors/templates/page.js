// The page of the consensus: asks for the flower that the sliders show, and plots stakes and trust as they change.
// Everything that comes from a model is put in as text, never as markup.

const COLOURS = ["#2f6f4f", "#b4532a", "#3b6ea8", "#8a5a9e", "#9a7b1f", "#1f8a8a", "#b03a6a", "#5b6b2f"];
const SVG = "http://www.w3.org/2000/svg";
const PLOT = { left: 56, right: 790, top: 10, bottom: 290 };
const ROUNDS_SHOWN = 200;
const ROUNDS_TO_PLAY = 50;
const ROUNDS_AT_ONCE = 5;

const form = document.getElementById("flower");
const consensus = document.getElementById("consensus");
const rows = document.querySelector("#models tbody");
const plot = document.getElementById("plot");
const legend = document.getElementById("legend");
const ledger = document.getElementById("ledger");
const button = document.getElementById("play");
const played = document.getElementById("played");

let asked = 0;

async function get(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || `status ${answer.status}`);
  return body;
}

function cell(row, text, number) {
  const made = row.insertCell();
  made.textContent = text;
  if (number) made.className = "number";
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

async function predict() {
  const number = ++asked;
  const query = new URLSearchParams();
  // Not all elements of the form: what shows a value counts as one of them, too.
  for (const slider of form.querySelectorAll("input")) {
    query.set(slider.name, slider.value);
    document.getElementById(`o-${slider.name}`).textContent = slider.value;
  }
  try {
    const said = await get(`/predict?${query}`);
    // An answer that was overtaken is old.
    if (number !== asked) return;
    consensus.textContent = "Together they say ";
    const strong = document.createElement("strong");
    strong.textContent = said.label;
    consensus.append(strong, ` (${percent(said.confidence)} sure).`);
    const models = await get("/models");
    if (number === asked) showModels(models, said.individual_predictions || []);
  } catch (problem) {
    if (number === asked) consensus.textContent = problem.message;
  }
}

function showModels(models, said) {
  const fresh = document.createElement("tbody");
  for (const model of models) {
    const one = said.find((other) => other.model === model.name);
    const row = fresh.insertRow();
    row.dataset.model = model.name;
    if (model.status === "ejected") row.className = "ejected";
    else if (one && one.status !== "ok") row.className = "absent";
    cell(row, model.name);
    cell(row, one ? one.label || "—" : "(private)");
    cell(row, one && one.probabilities ? percent(Math.max(...one.probabilities)) : "", true);
    cell(row, percent(model.weight), true);
    const trust = cell(row, "", true);
    const meter = document.createElement("meter");
    meter.max = 1;
    meter.value = model.trust;
    meter.title = model.trust.toFixed(3);
    trust.append(meter);
    cell(row, model.stake.toFixed(2), true).className = "number stake";
    cell(row, one && one.status !== "ok" && one.reason ? `${one.status}: ${one.reason}` : model.status);
  }
  rows.replaceChildren(...fresh.rows);
}

function make(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw(history) {
  const what = document.querySelector("input[name=what]:checked").value;
  const series = new Map();
  history.forEach((round, at) => {
    for (const model of round.models) {
      if (!series.has(model.name)) series.set(model.name, []);
      series.get(model.name).push([at, model[what]]);
    }
  });
  const values = [...series.values()].flat().map((point) => point[1]);
  const most = what === "trust" ? 1 : Math.max(1100, ...values) * 1.02;
  const least = what === "trust" ? 0 : Math.min(450, ...values) * 0.98;
  const x = (at) => PLOT.left + ((PLOT.right - PLOT.left) * at) / Math.max(1, history.length - 1);
  const y = (value) => PLOT.bottom - ((PLOT.bottom - PLOT.top) * (value - least)) / (most - least);
  const parts = [];
  for (let step = 0; step <= 4; step += 1) {
    const value = least + ((most - least) * step) / 4;
    parts.push(make("line", { x1: PLOT.left, x2: PLOT.right, y1: y(value), y2: y(value) }));
    const text = what === "trust" ? value.toFixed(2) : value.toFixed(0);
    parts.push(make("text", { x: PLOT.left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  const first = history.length ? history[0].settlement + 1 : 0;
  const last = history.length ? history[history.length - 1].settlement + 1 : 0;
  parts.push(make("text", { x: PLOT.left, y: 312 }, `round ${first}`));
  parts.push(make("text", { x: PLOT.right, y: 312, "text-anchor": "end" }, `round ${last}`));
  const names = [...series.keys()].sort();
  const entries = names.map((name, index) => {
    const stroke = COLOURS[index % COLOURS.length];
    const points = series.get(name).map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    parts.push(make("polyline", { points: points.join(" "), stroke, "data-model": name }));
    const entry = document.createElement("li");
    const sample = make("svg", { width: 18, height: 6 });
    sample.append(make("rect", { width: 18, height: 6, fill: stroke }));
    entry.append(sample, name);
    return entry;
  });
  plot.replaceChildren(...parts);
  legend.replaceChildren(...entries);
}

async function refresh() {
  const [history, money] = await Promise.all([get(`/history?limit=${ROUNDS_SHOWN}`), get("/ledger")]);
  draw(history);
  const proof = money.conserved ? "nothing appeared or vanished" : "THE LEDGER DOES NOT ADD UP";
  ledger.textContent =
    `Stakes ${money.stakes.toFixed(2)} + treasury ${money.treasury.toFixed(2)} + escrow ${money.escrow.toFixed(2)}` +
    ` = ${money.supply.toFixed(2)} tokens: ${proof}.`;
}

async function play() {
  button.disabled = true;
  try {
    for (let done = 0; done < ROUNDS_TO_PLAY; done += ROUNDS_AT_ONCE) {
      const answer = await fetch("/play", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ rounds: ROUNDS_AT_ONCE }),
      });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      played.textContent = `${done + ROUNDS_AT_ONCE} of ${ROUNDS_TO_PLAY} rounds played`;
      await refresh();
    }
    await predict();
  } catch (problem) {
    played.textContent = problem.message;
  } finally {
    button.disabled = false;
  }
}

function quietly(work) {
  work().catch((problem) => {
    ledger.textContent = problem.message;
  });
}

form.addEventListener("input", predict);
form.addEventListener("submit", (event) => event.preventDefault());
for (const choice of document.querySelectorAll("input[name=what]")) {
  choice.addEventListener("change", () => quietly(refresh));
}
if (button) button.addEventListener("click", play);
setInterval(() => {
  if (!document.hidden) quietly(refresh);
}, 2000);
quietly(refresh);
predict();
