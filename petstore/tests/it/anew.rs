//! What a page does in a browser when the stream it follows is refused for good.
//! Invariant: it begins anew at an address that can be loaded, once it can be loaded, and takes nothing away that
//! somebody has typed or has still to read.

use serde_json::{Value, json};

use super::system::{EMPTY, System, order};
use crate::browser::Browser;

/// The script of the page once more, with a stream in this state that fails, and with a timer that rings at once, but
/// not a second time: how many milliseconds it was set to each time, and where the browser was sent. It stays where it
/// is all the same.
const FOLLOW: &str = "
// The page's own stream would tell that it is followed.
window.dispatchEvent(new Event('pagehide'));
if (blocked) {
  const get = () => { throw new DOMException('Access is denied', 'SecurityError'); };
  Object.defineProperty(window, 'sessionStorage', { configurable: true, get });
}
let stream, ring, sent = null;
const pauses = [];
window.EventSource = class extends EventTarget {
  static CLOSED = 2;
  constructor() { super(); this.readyState = state; stream = this; }
  close() {}
};
const leave = (event) => { sent = event.destination.url; event.preventDefault(); };
navigation.addEventListener('navigate', leave);
const script = document.createElement('script');
script.type = 'module';
// A script that is known already would not run again.
script.src = `/shop.js?${performance.now()}`;
const loaded = new Promise((done) => script.addEventListener('load', done));
document.head.append(script);
return loaded.then(async () => {
  if (typed) window.dispatchEvent(new Event('input'));
  if (followed) stream.dispatchEvent(new Event('open'));
  const [later, load] = [window.setTimeout, window.fetch];
  window.setTimeout = (work, ms) => { ring = work; pauses.push(ms); };
  if (answered) window.fetch = async () => new Response(null, { status: answered });
  stream.dispatchEvent(new Event('error'));
  await ring?.();
  [window.setTimeout, window.fetch] = [later, load];
  await new Promise((done) => later(done, 100));
  navigation.removeEventListener('navigate', leave);
  return [pauses, sent];
});";

/// What `EventSource` says while the browser tries again by itself, and when it has given up.
const CONNECTING: u8 = 0;
const CLOSED: u8 = 2;

/// What happens to a page, and before.
#[derive(Clone, Copy)]
struct Case {
    state: u8,
    typed: bool,
    /// A stream of this tab was refused before, and none was opened since.
    refused_before: bool,
    /// The browser lets no page keep anything.
    blocked: bool,
    /// What is answered to whoever asks for the page; 0 where that is left to the shop.
    answered: u16,
}

const REFUSED: Case = Case {
    state: CLOSED,
    typed: false,
    refused_before: false,
    blocked: false,
    answered: 0,
};

/// How often the page puts beginning anew off, and where the browser is sent. Each pause is twice the last one.
async fn follow(browser: &Browser, case: Case) -> (usize, Value) {
    let Case {
        state,
        typed,
        refused_before,
        blocked,
        answered,
    } = case;
    let followed = !refused_before;
    let given =
        format!("const state = {state}, typed = {typed}, followed = {followed}, answered = {answered};");
    let given = format!("{given} const blocked = {blocked};");
    let told = browser.run(&(given + FOLLOW)).await;
    let pauses = told[0].as_array().unwrap();
    let mut least = if refused_before { 10_000.0 } else { 5000.0 };
    for pause in pauses {
        assert!((least..=3.0 * least).contains(&pause.as_f64().unwrap()), "{told}");
        least *= 2.0;
    }
    (pauses.len(), told[1].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_begins_anew_where_it_can_be_loaded() {
    let system = System::open().await;
    let url = |page: &str| format!("http://{}{page}", system.shops[0].address);
    let browser = Browser::open(&url("/?q=corn")).await;
    let connecting = Case {
        state: CONNECTING,
        ..REFUSED
    };
    assert_eq!(follow(&browser, connecting).await, (0, Value::Null));
    for (typed, sent) in [(false, json!(url("/?q=corn"))), (true, Value::Null)] {
        browser.go(&url("/?q=corn")).await;
        let case = Case { typed, ..REFUSED };
        assert_eq!(follow(&browser, case).await, (1, sent));
    }
    // An answer to a form: nothing but forms can be sent to where it is.
    let mut body = order("6", 1, EMPTY);
    body["userId"] = json!("guest");
    let declined = system.operator().post("/orders", &body).await;
    let declined = declined.refused(402, "card-declined").json();
    let order = format!("/shop/orders/{}", declined["order_id"].as_str().unwrap());
    for (prepare, sent) in [
        ("", Value::Null),
        ("document.getElementById('error').remove()", json!(url(&order))),
    ] {
        browser.go(&url("/")).await;
        let cancel = format!(
            "const form = document.createElement('form');
             form.method = 'post';
             form.action = '{order}/cancel';
             document.body.append(form);
             form.submit()"
        );
        browser.run(&cancel).await;
        browser
            .wait_for_text("#error", |text| text.contains("nothing left to cancel"))
            .await;
        browser.run(prepare).await;
        assert_eq!(follow(&browser, REFUSED).await, (1, sent));
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_cannot_be_loaded_now_is_not_lost() {
    let system = System::open().await;
    let cart = format!("http://{}/shop/cart", system.shops[0].address);
    let browser = Browser::open(&cart).await;
    // Nobody can say what the page is now; or that it is gone, which is worth telling.
    for (answered, told) in [
        (503, (2, Value::Null)),
        (429, (2, Value::Null)),
        (404, (1, json!(cart))),
    ] {
        browser.go(&cart).await;
        let case = Case { answered, ..REFUSED };
        assert_eq!(follow(&browser, case).await, told, "{answered}");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_may_keep_nothing_begins_anew_too() {
    let system = System::open().await;
    let cart = format!("http://{}/shop/cart", system.shops[0].address);
    let browser = Browser::open(&cart).await;
    let blocked = Case {
        blocked: true,
        ..REFUSED
    };
    assert_eq!(follow(&browser, blocked).await, (1, json!(cart)));
    system.stop().await;
}

/// As where more pages are open than may be followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_refused_again_waits_longer() {
    let system = System::open().await;
    let cart = format!("http://{}/shop/cart", system.shops[0].address);
    let browser = Browser::open(&cart).await;
    let again = Case {
        refused_before: true,
        ..REFUSED
    };
    for case in [REFUSED, again, REFUSED] {
        assert_eq!(follow(&browser, case).await, (1, json!(cart)));
    }
    system.stop().await;
}
