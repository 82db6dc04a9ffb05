// Live stock, prices, cart and orders. Every page works without it; with it, pages need not be loaded again.
// The stream says its place with each event, so the browser goes on at another instance by itself.

const all = (selector) => document.querySelectorAll(selector);
const named = (attribute, id) => all(`[${attribute}="${CSS.escape(id)}"]`);
const live = document.getElementById("live");
const error = document.getElementById("error");
// An answer to a form has the address of the form, which may have no page to show; it says where its page is.
const page = document.body.dataset.page || location.pathname + location.search;

function show(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  element.classList.remove("flash");
  void element.offsetWidth;
  element.classList.add("flash");
  return true;
}

const left = (stock) => (stock > 0 ? `${stock} left` : "sold out");

const heard = {
  stock({ id, stock }) {
    for (const element of named("data-stock", id)) {
      if (show(element, left(stock))) live.textContent = `${element.dataset.name}: ${left(stock)}`;
    }
    for (const button of named("data-buy", id)) button.disabled = stock <= 0;
  },
  product({ id, price_text }) {
    for (const element of named("data-price", id)) show(element, price_text);
  },
  gone({ id }) {
    for (const element of named("data-stock", id)) show(element, "no longer here");
    for (const button of named("data-buy", id)) button.disabled = true;
  },
  cart({ count }) {
    for (const element of all("[data-cart-count]")) show(element, String(count));
  },
  order({ order_id, status }) {
    for (const element of named("data-order", order_id)) {
      if (!show(element, status)) continue;
      live.textContent = `Order: ${status}`;
      // The page of the order says more about its new state than a word.
      if ("moving" in element.dataset) location.replace(page);
    }
  },
};

// What somebody has typed is worth more than fresh numbers beside it.
let typed = false;
addEventListener("input", () => { typed = true; });

const address = document.body.dataset.events;
if (address) {
  const stream = new EventSource(address);
  for (const [name, hear] of Object.entries(heard)) {
    stream.addEventListener(name, (event) => hear(JSON.parse(event.data)));
  }
  // A browser that lets pages keep nothing throws; such a page waits as if it were the first.
  const kept = (work) => {
    try { return work(sessionStorage); } catch { return null; }
  };
  // A lost connection is the browser's to mend. After a refusal it gives up for good, be it that too many pages are
  // followed, that the store has forgotten what came since, or that a session is over: the page begins anew, by GET and
  // at a time of its own. What went wrong would be told nobody then, so such a page stays. Where nobody can answer at
  // the moment it is asked for once more later, since an error in its place would never go away again. Pages of a tab
  // that are refused one after the other wait twice as long each time, until one of them is followed.
  const wait = () => {
    const pause = Number(kept((storage) => storage.getItem("pause"))) || 5000;
    kept((storage) => storage.setItem("pause", Math.min(2 * pause, 80000)));
    setTimeout(again, pause * (1 + 2 * Math.random()));
  };
  const again = async () => {
    if (typed || error) return;
    const answer = await fetch(page, { signal: AbortSignal.timeout(30000) }).catch(() => null);
    if (!answer || answer.status >= 500 || answer.status === 429) wait();
    else if (!typed) location.replace(page);
  };
  stream.addEventListener("open", () => kept((storage) => storage.removeItem("pause")));
  stream.addEventListener("error", () => { if (stream.readyState === EventSource.CLOSED) wait(); });
  addEventListener("pagehide", () => stream.close());
}

// A second press of the button is the same order anyway; this only spares the wait.
for (const form of all("form[data-once]")) {
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) button.disabled = true;
  });
}

error?.focus();
