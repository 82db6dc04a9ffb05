//! What a page does in a browser when the stream it follows is refused for good.
//! Invariant: it begins anew at an address that can be loaded, and takes nothing away that somebody has typed or has
//! still to read.

use serde_json::{Value, json};

use super::system::{EMPTY, System, order};
use crate::browser::Browser;

/// The script of the page once more, with a stream in this state that fails, and with a timer that rings at once: how
/// many milliseconds it was set to, and where the browser was sent. It stays where it is all the same.
const FOLLOW: &str = "
let stream, timer, sent = null;
window.EventSource = class extends EventTarget {
  static CLOSED = 2;
  constructor() { super(); this.readyState = state; stream = this; }
  close() {}
};
const leave = (event) => { sent = event.destination.url; event.preventDefault(); };
navigation.addEventListener('navigate', leave);
const script = document.createElement('script');
script.type = 'module';
script.src = '/shop.js?once-more';
const loaded = new Promise((done) => script.addEventListener('load', done));
document.head.append(script);
return loaded.then(() => {
  if (typed) window.dispatchEvent(new Event('input'));
  const later = window.setTimeout;
  window.setTimeout = (work, ms) => { timer = { work, ms }; };
  stream.dispatchEvent(new Event('error'));
  window.setTimeout = later;
  timer?.work();
  return new Promise((done) => later(done, 100));
}).then(() => {
  navigation.removeEventListener('navigate', leave);
  return [timer?.ms ?? null, sent];
});";

/// What `EventSource` says while the browser tries again by itself, and when it has given up.
const CONNECTING: u8 = 0;
const CLOSED: u8 = 2;

/// Whether the page begins anew some time later, and where the browser is sent.
async fn follow(browser: &Browser, state: u8, typed: bool) -> (bool, Value) {
    let script = format!("const state = {state}, typed = {typed};{FOLLOW}");
    let told = browser.run(&script).await;
    let later = told[0].as_f64();
    assert!(later.is_none_or(|ms| (5000.0..=15_000.0).contains(&ms)), "{told}");
    (later.is_some(), told[1].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_begins_anew_where_it_can_be_loaded() {
    let system = System::open().await;
    let url = |page: &str| format!("http://{}{page}", system.shops[0].address);
    let browser = Browser::open(&url("/?q=corn")).await;
    assert_eq!(follow(&browser, CONNECTING, false).await, (false, Value::Null));
    for (typed, sent) in [(false, json!(url("/?q=corn"))), (true, Value::Null)] {
        browser.go(&url("/?q=corn")).await;
        assert_eq!(follow(&browser, CLOSED, typed).await, (true, sent));
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
        assert_eq!(follow(&browser, CLOSED, false).await, (true, sent));
    }
    system.stop().await;
}
