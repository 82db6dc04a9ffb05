// The page's only script: hears what changes, draws the timeline, and presses buttons without leaving the page.
// It makes nothing up: every word and number comes from the stream. No library, no build.

const $ = (id) => document.getElementById(id);
const WINDOW_PX_PER_S = 62;
const KEEP_MS = 40_000;

// ---------- the picture: processes, roles, headline ----------

let leaders = []; // {at, name}: who led from when on, for the ribbon below the timeline
let serverNow = 0;
let heardAt = 0;

function onPicture(picture) {
  $("headline").textContent = picture.headline;
  $("headline").dataset.health = picture.health;
  document.title = `${picture.headline} Menagerie`;
  $("term").textContent = picture.term ?? "";
  $("kill-leader").querySelector("button").disabled = picture.leader === null;
  const health = {};
  for (const process of picture.processes) {
    health[process.name] = process.health;
    showProcess(process);
  }
  for (const line of document.querySelectorAll("line")) {
    const { from, to } = line.dataset;
    const led = picture.leader === from || picture.leader === to;
    line.classList.toggle("live", led && health[from] === "good" && health[to] === "good");
    line.classList.toggle("back", picture.leader === to);
  }
  const last = leaders.at(-1);
  if (!last || last.name !== picture.leader) leaders.push({ at: clock(), name: picture.leader });
}

function showProcess(process) {
  const row = document.querySelector(`[data-process="${CSS.escape(process.name)}"]`);
  if (row) {
    row.dataset.health = process.health;
    for (const field of ["says", "term", "log", "lag", "restarts"]) {
      const cell = row.querySelector(`[data-field=${field}]`);
      const text = String(process[field] ?? "");
      if (cell.textContent !== text) cell.textContent = text;
    }
    for (const form of row.querySelectorAll("form")) {
      const hide = !process.actions.includes(form.dataset.action);
      // The button that was just pressed goes; who uses the keyboard is handed the one that comes.
      if (hide && !form.hidden && form.contains(document.activeElement)) {
        queueMicrotask(() => row.querySelector("form:not([hidden]) button")?.focus());
      }
      form.hidden = hide;
    }
  }
  const spot = document.querySelector(`[data-spot="${CSS.escape(process.name)}"]`);
  if (spot) {
    spot.dataset.health = process.health;
    spot.classList.toggle("leads", process.leads);
    const role = spot.querySelector(".role");
    if (role) role.textContent = process.leads ? "leader" : process.says.split(",")[0];
  }
}

// ---------- what happened ----------

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
let newestEntry = 0;

function onEntry(entry) {
  if (entry.id <= newestEntry) return;
  newestEntry = entry.id;
  const item = document.createElement("li");
  item.dataset.entry = entry.id;
  item.dataset.tone = entry.tone;
  const stamp = document.createElement("time");
  stamp.textContent = time.format(entry.at_ms);
  item.append(stamp, entry.text);
  $("log").prepend(item);
  while ($("log").children.length > 100) $("log").lastElementChild.remove();
}

for (const item of $("log").children) {
  newestEntry = Math.max(newestEntry, Number(item.dataset.entry));
  const stamp = item.querySelector("time");
  stamp.textContent = time.format(Number(stamp.dataset.ms));
}

// ---------- the probe ----------

let calls = []; // [began, took, kind]
let pauses = []; // {from, ms}
let silentSince = null;
const number = new Intl.NumberFormat();
const ms = (value) => (value < 10 ? `${value.toFixed(1)} ms` : `${number.format(Math.round(value))} ms`);

/** The server's time now, as far as one can know it between two messages. */
function clock() {
  return serverNow + (heardAt ? performance.now() - heardAt : 0);
}

function onBeat(beat) {
  if (beat.now < serverNow - 1000) {
    // The probe began anew, and so did its time.
    [calls, pauses, leaders] = [[], [], leaders.slice(-1).map((last) => ({ ...last, at: 0 }))];
  }
  serverNow = beat.now;
  heardAt = performance.now();
  calls.push(...beat.calls);
  pauses.push(...beat.pauses);
  const old = serverNow - KEEP_MS;
  if (calls.length && calls[0][0] < old) calls = calls.filter((call) => call[0] >= old);
  pauses = pauses.filter((pause) => pause.from >= old);
  silentSince = beat.silent_ms === null ? null : beat.now - beat.silent_ms;
  const { acknowledged, lost, unknown, checks, checked_through } = beat.tally;
  $("acknowledged").textContent = `acknowledged: ${number.format(acknowledged)}`;
  $("lost").textContent = `lost: ${number.format(lost)}`;
  $("lost").dataset.lost = lost;
  $("through").textContent = checked_through ? `, read back through ${checked_through}` : "";
  $("unknown").textContent = number.format(unknown);
  $("checks").textContent = `${number.format(checks)} times`;
  if (beat.pauses.length) $("last-pause").textContent = ms(beat.pauses.at(-1).ms);
  if (beat.longest_ms > 0) $("longest-pause").textContent = ms(beat.longest_ms);
}

// ---------- the timeline ----------

const canvas = $("timeline");
const pen = canvas.getContext("2d");
let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "quiet", "hair", "lead", "lead-soft", "read", "bad", "bad-soft", "sheet"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}
readColours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);

/** From a quarter of a millisecond to a second on a scale of tens, as a part of the height. */
const tallness = (took) => Math.max(0, Math.min(1, Math.log10(took / 0.25) / Math.log10(1000 / 0.25)));

function draw() {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const shown = (width / WINDOW_PX_PER_S) * 1000;
  // A little in the past, so that what happened now has been heard of by the time it is drawn.
  const right = clock() - 150;
  const x = (at) => width - ((right - at) / 1000) * WINDOW_PX_PER_S;
  const ribbon = height - 26;
  const axis = Math.round(ribbon * 0.72);
  drawScale(width, axis, ribbon);
  drawPauses(x, width, axis, ribbon, right);
  for (const [began, took, kind] of calls) {
    const at = x(began + took);
    if (at < -2 || at > width + 2) continue;
    const up = kind < 2;
    const room = up ? axis - 26 : ribbon - axis - 8;
    const tall = kind % 2 ? room : Math.max(1.5, tallness(took) * room);
    pen.fillStyle = kind % 2 ? colours.bad : up ? colours.lead : colours.read;
    pen.fillRect(at, up ? axis - tall : axis + 1, 1.2, tall);
  }
  drawRibbon(x, width, ribbon, right - shown);
  canvas.setAttribute("aria-label", `${$("headline").textContent} ${$("proof").textContent}`);
}

function drawScale(width, axis, ribbon) {
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  for (const took of [1, 10, 100, 1000]) {
    const y = Math.round(axis - tallness(took) * (axis - 26)) + 0.5;
    pen.strokeStyle = colours.hair;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(width, y);
    pen.stroke();
    pen.fillStyle = colours.quiet;
    pen.fillText(took < 1000 ? `${took} ms` : "1 s", 8, y - 4);
  }
  pen.fillStyle = colours.hair;
  pen.fillRect(0, axis, width, 1);
}

function drawPauses(x, width, axis, ribbon, right) {
  const open = silentSince !== null && right - silentSince > 200 ? [{ from: silentSince, ms: right - silentSince }] : [];
  for (const pause of [...pauses, ...open]) {
    const from = x(pause.from);
    const wide = Math.max(2, (pause.ms / 1000) * WINDOW_PX_PER_S);
    if (from + wide < 0 || from > width) continue;
    pen.fillStyle = colours["bad-soft"];
    pen.fillRect(from, 22, wide, ribbon - 30);
    pen.fillStyle = colours.bad;
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    const middle = Math.min(Math.max(from + wide / 2, 30), width - 30);
    pen.fillText(ms(pause.ms), middle, 16);
  }
}

function drawRibbon(x, width, top, left) {
  const visible = leaders.filter((part, index) => (leaders[index + 1]?.at ?? Infinity) > left);
  leaders = visible;
  pen.font = "600 11px system-ui, sans-serif";
  pen.textAlign = "left";
  visible.forEach((part, index) => {
    const from = Math.max(0, x(part.at));
    const to = Math.min(width, index + 1 < visible.length ? x(visible[index + 1].at) : width);
    if (to <= from) return;
    pen.fillStyle = part.name ? colours["lead-soft"] : colours["bad-soft"];
    pen.fillRect(from + (from > 0 ? 1 : 0), top, to - from, 26);
    pen.fillStyle = part.name ? colours.lead : colours.bad;
    const label = part.name ? `${part.name} leads` : "nobody leads";
    if (to - from > pen.measureText(label).width + 12) pen.fillText(label, from + 8, top + 17);
  });
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let drawnAt = 0;

function animate(now) {
  // Those who asked for less motion see it step twice a second.
  if (!calm.matches || now - drawnAt > 500) {
    drawnAt = now;
    draw();
  }
  requestAnimationFrame(animate);
}
requestAnimationFrame(animate);

// ---------- the last minute ----------

let seconds = [];

function onSecond(second) {
  seconds = [...seconds, second].slice(-60);
  $("rate-now").textContent = number.format(second.writes);
  if (second.p50_ms !== null) $("latency-now").textContent = `${ms(second.p50_ms)}, 99 % under ${ms(second.p99_ms)}`;
  spark($("rate").querySelector("polyline"), seconds.map((each) => each.writes), 10);
  const highest = Math.max(1, ...seconds.map((each) => each.p99_ms ?? 0));
  spark($("latency").querySelector(".p99"), seconds.map((each) => each.p99_ms), highest);
  spark($("latency").querySelector("polyline:not(.p99)"), seconds.map((each) => each.p50_ms), highest);
}

function spark(line, values, least) {
  const highest = Math.max(least, ...values.map((value) => value ?? 0));
  const point = (value, index) => `${(240 - (values.length - 1 - index) * 4.06).toFixed(1)},${(42 - (value / highest) * 40).toFixed(1)}`;
  const points = values.map((value, index) => (value === null ? null : point(value, index)));
  line.setAttribute("points", points.filter(Boolean).join(" "));
}

// ---------- buttons ----------

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  // Not disabled while it works: that would take the keyboard's focus away.
  if (form.dataset.busy) return;
  form.dataset.busy = "yes";
  $("said").textContent = "";
  try {
    const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
    if (!answer.ok) $("said").textContent = (await answer.json()).detail;
  } catch {
    $("said").textContent = "The launcher does not answer.";
  } finally {
    delete form.dataset.busy;
  }
});

// ---------- the stream ----------

let stream = null;
const LINK = { opening: "connecting", open: "live", closed: "not connected; trying again", away: "asleep" };

function setLink(state) {
  $("link").dataset.state = state;
  $("link").textContent = LINK[state];
}

function open() {
  if (stream) return;
  setLink("opening");
  stream = new EventSource("/events");
  stream.addEventListener("open", () => setLink("open"));
  stream.addEventListener("error", () => {
    setLink("closed");
    // The browser tries again by itself unless it was refused.
    if (stream?.readyState === EventSource.CLOSED) {
      close();
      setTimeout(open, 2000);
    }
  });
  const heard = { picture: onPicture, entry: onEntry, beat: onBeat, second: onSecond };
  for (const [name, hear] of Object.entries(heard)) {
    stream.addEventListener(name, (event) => hear(JSON.parse(event.data)));
  }
}

function close() {
  stream?.close();
  stream = null;
}

// A tab in the background is nobody looking: the probe may rest.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
    setLink("away");
  } else {
    open();
  }
});
if (!document.hidden) open();
