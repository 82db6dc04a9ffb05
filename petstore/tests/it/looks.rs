//! How the pages look and read: in the light and in the dark, on a desk and on a phone, to those who see and to those
//! who are read to.
//! Invariant: every text has the contrast of WCAG AA against what is behind it, every field a label, and nothing
//! sticks out.

use serde_json::json;

use super::system::{System, VISA, order};
use crate::browser::Browser;

/// Every text that is shown with less contrast than it must have, as `text: ratio`.
const FAINT: &str = "
const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const colour = (text) => {
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = text;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return { r, g, b, a: a / 255 };
};
const over = (front, back) => ({ r: front.r * front.a + back.r * (1 - front.a), g: front.g * front.a + back.g * (1 - front.a),
  b: front.b * front.a + back.b * (1 - front.a), a: 1 });
const part = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
const light = ({ r, g, b }) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const behind = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.push(colour(getComputedStyle(one).backgroundColor));
  return layers.reverse().reduce((back, front) => over(front, back), { r: 255, g: 255, b: 255, a: 1 });
};
const faint = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim();
  const element = walk.currentNode.parentElement;
  const style = getComputedStyle(element);
  if (!text || !element.offsetParent || element.closest('.hidden, .skip, :disabled, option')) continue;
  const back = behind(element);
  const [one, two] = [light(over(colour(style.color), back)), light(back)];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) faint.push(`${text}: ${ratio.toFixed(2)}`);
}
return faint;";

/// What a reader of screens could not name, and what a policy without inline code would not run.
const NAMELESS: &str = "
const wrong = [];
for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
  if (!field.labels.length || !field.labels[0].innerText.trim()) wrong.push(`no label: ${field.outerHTML}`);
}
for (const one of document.querySelectorAll('button, a, h1')) {
  if (!one.textContent.trim()) wrong.push(`no name: ${one.outerHTML}`);
}
for (const image of document.querySelectorAll('img')) if (!image.hasAttribute('alt')) wrong.push(image.outerHTML);
if (document.querySelectorAll('[style], style, script:not([src])').length) wrong.push('inline style or script');
for (const one of document.querySelectorAll('*')) {
  for (const { name } of one.attributes) if (name.startsWith('on')) wrong.push(`${name} on ${one.outerHTML}`);
}
if (document.body.dataset.events && document.querySelectorAll('[role=status]').length !== 1) wrong.push('no status region');
if (document.querySelectorAll('h1').length !== 1) wrong.push('not one heading');
if (!document.documentElement.lang) wrong.push('no language');
return wrong;";

/// As wide as the screen, unless something sticks out.
const WIDE: &str = "return document.scrollingElement.scrollWidth";

async fn nothing(browser: &Browser, script: &str, page: &str) {
    let found = browser.run(script).await;
    assert_eq!(found, json!([]), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_can_be_read_by_everybody() {
    let system = System::start().await;
    let url = |page: &str| format!("http://{}{page}", system.shops[0].address);
    let browser = Browser::open(&url("/")).await;
    browser.keep_picture("shop.png").await;
    let sold_out = system.product("Dodo", 10.0, 0).await;
    let password = system.cluster.secrets().shop.admin_password.expose();
    let mut body = order("6", 2, VISA);
    body["userId"] = json!("admin");
    let made = system.operator().post("/orders", &body).await.expect(201).json();
    let made = made["order_id"].as_str().unwrap();
    let cart = json!({"productId": "1", "quantity": 2});
    system.operator().post("/cart/admin", &cart).await.expect(200);
    let (product, made) = (
        format!("/shop/product/{sold_out}"),
        format!("/shop/orders/{made}"),
    );
    let pages = [
        ("/shop/sign-in", "Sign in"),
        ("/shop/sign-up", "Sign up"),
        ("/", "Animals"),
        (product.as_str(), "Dodo"),
        ("/?q=nothing+like+this", "Animals"),
        ("/shop/cart", "Cart"),
        ("/shop/checkout", "Checkout"),
        ("/shop/orders", "Orders"),
        (made.as_str(), "Order"),
        ("/shop/admin", "Shelves"),
        ("/shop/product/nothing", "Product not found"),
    ];
    for (n, (page, title)) in pages.iter().enumerate() {
        if n == 2 {
            // Whoever is signed in sees the rest; the first try shows how a refusal looks.
            for (password, shown) in [("a wrong password", "#error"), (password, ".who span")] {
                browser.go(&url("/shop/sign-in?next=%2F")).await;
                browser.click("[name=username]").await;
                browser.type_text("admin").await;
                browser.click("[name=password]").await;
                browser.type_text(password).await;
                browser.click(".stack button").await;
                // The answer, and not the form that is still there.
                browser.wait_for_text(shown, |text| !text.is_empty()).await;
                nothing(&browser, FAINT, "after signing in").await;
                nothing(&browser, NAMELESS, "after signing in").await;
            }
            assert_eq!(browser.text(".who span").await, "admin");
        }
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            browser.go(&url(page)).await;
            let shown = browser.run("return document.title").await;
            assert!(shown.as_str().unwrap().starts_with(title), "{page} is {shown}");
            nothing(&browser, FAINT, &format!("{page} {scheme}")).await;
            nothing(&browser, NAMELESS, page).await;
        }
        browser.resize(375, 812, true).await;
        assert_eq!(
            browser.run(WIDE).await,
            375,
            "nothing sticks out of {page} on a phone"
        );
        browser.resize(1280, 900, false).await;
    }
    system.stop().await;
}
