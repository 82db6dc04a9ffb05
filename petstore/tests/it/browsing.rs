//! The pages in a real browser, through the gateway: with scripts and without, by keyboard alone, in two tabs at the
//! same time, and while the instance dies that has taken the order.
//! Invariant: whatever the browser does, it is one order and one charge, and it never complains.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::system::{EMPTY, PASSWORD, System, VISA, order};
use crate::browser::Browser;
use crate::harness::{Client, DEADLINE, wait_for};
use crate::vessel::Vessel;

const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";
/// Of all kinds of stops that a page has for the keyboard, twice over.
const STOPS_MAX: usize = 120;

/// Shops with a gateway in front, which is where the browser goes.
struct Street {
    system: System,
    gateway: Vessel,
}

impl Street {
    async fn open(shops: usize) -> Self {
        let system = System::start_with(1, shops, |_config| {}).await;
        let (config, secrets) = (system.config.clone(), system.cluster.secrets().clone());
        let gateway = Vessel::launch(0, |listener, tasks| {
            let name = "gateway".to_owned();
            let settings = gateway::Settings {
                config,
                name,
                secrets,
            };
            gateway::run(settings, listener, tasks)
        });
        let street = Self { system, gateway };
        street.has(shops).await;
        street
    }

    /// Waits until the gateway knows so many shops that are well.
    async fn has(&self, shops: usize) {
        let client = Client::at(self.gateway.address, self.system.token("operator"));
        wait_for("the gateway to know the shops", async || {
            let services = client.get("/services").await.json();
            let rows = services["services"].as_array().cloned().unwrap_or_default();
            let well = |row: &&Value| row["service"] == "petstore" && row["health"] == "up";
            let count = rows.iter().filter(well).count();
            (count == shops).then_some(()).ok_or(services)
        })
        .await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    /// A browser of somebody who has just signed up.
    async fn visitor(&self, scripts: bool) -> Browser {
        let browser = Browser::open(&self.url("/")).await;
        if !scripts {
            browser.switch_scripts_off().await;
        }
        browser.go(&self.url("/shop/sign-up?next=%2F")).await;
        fill(&browser, "[name=username]", "ada").await;
        fill(&browser, "[name=password]", PASSWORD).await;
        browser.click(".stack button").await;
        browser.wait_for_text(".who span", |name| name == "ada").await;
        browser
    }

    async fn close(mut self) {
        self.gateway.stop().await;
        self.system.stop().await;
    }
}

async fn fill(browser: &Browser, selector: &str, text: &str) {
    browser.click(selector).await;
    browser.type_text(text).await;
}

/// From the page of a product to the form of the checkout, with the number of a card in it.
async fn to_the_till(street: &Street, browser: &Browser, product: &str, card: &str) {
    browser.go(&street.url(&format!("/shop/product/{product}"))).await;
    browser.click("[data-buy]").await;
    browser.click("a[href='/shop/checkout']").await;
    fill(browser, "[name=cardNumber]", card).await;
}

async fn is_paid(browser: &Browser) {
    browser.wait_for_text(".state", |text| text == "paid").await;
    browser
        .wait_for_text("main", |text| text.contains("all is done, thank you"))
        .await;
}

/// One order of one piece for ten euros, and nothing else happened.
async fn judge(street: &Street, product: &str, money: (i64, i64)) {
    let audit = street.system.settled().await;
    assert_eq!(audit["orders"], 1, "{audit}");
    assert_eq!(street.system.stock(product).await, 4);
    assert_eq!(street.system.balance(VISA).await, (money.0 - 1000, money.1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_buys_in_a_browser_without_scripts() {
    let street = Street::open(2).await;
    let product = street.system.product("Newt", 10.0, 5).await;
    let money = street.system.balance(VISA).await;
    let browser = street.visitor(false).await;
    fill(&browser, "[name=q]", "newt").await;
    browser.click(".filters button").await;
    browser
        .wait_for_text("main > .dim", |text| text == "1 found")
        .await;
    to_the_till(&street, &browser, &product, EMPTY).await;
    browser.click(".stack button").await;
    browser
        .wait_for_text("[role=alert]", |text| text.contains("insufficient-funds"))
        .await;
    // It would have put the focus on what went wrong.
    let focused = browser.run("return document.activeElement.id").await;
    assert_eq!(focused, "", "no script is there to help");
    assert_eq!(street.system.settled().await["orders"], 1);
    fill(&browser, "[name=cardNumber]", VISA).await;
    browser.click(".stack button").await;
    is_paid(&browser).await;
    browser.click("a[href='/shop/orders']").await;
    browser
        .wait_for_text("main", |text| {
            text.contains("paid") && text.contains("payment_failed")
        })
        .await;
    assert_eq!(street.system.settled().await["orders"], 2);
    assert_eq!(street.system.stock(&product).await, 4);
    assert_eq!(street.system.balance(VISA).await, (money.0 - 1000, money.1));
    street.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_buys_with_scripts_and_a_second_tab_sees_it() {
    let street = Street::open(2).await;
    let product = street.system.product("Newt", 10.0, 5).await;
    let money = street.system.balance(VISA).await;
    let browser = street.visitor(true).await;
    // The first tab stays where it is from here on, and is never loaded again.
    browser.run("window.laid_out_once = true").await;
    let first = browser.open_tab(&street.url("/shop/cart")).await;
    to_the_till(&street, &browser, &product, VISA).await;
    let second = browser.look_at(&first).await;
    browser
        .wait_for_text("[data-cart-count]", |text| text == "1")
        .await;
    browser.look_at(&second).await;
    browser.click(".stack button").await;
    is_paid(&browser).await;
    browser.look_at(&first).await;
    let stock = format!("[data-stock='{product}']");
    browser.wait_for_text(&stock, |text| text == "4 left").await;
    browser
        .wait_for_text("[data-cart-count]", |text| text == "0")
        .await;
    // What a screen reader is told.
    browser
        .wait_for_text("#live", |text| text == "Newt: 4 left")
        .await;
    let buyer = street.system.user("bob").await.1;
    buyer.post("/orders", &order(&product, 4, VISA)).await.expect(201);
    browser.wait_for_text(&stock, |text| text == "sold out").await;
    let disabled = format!("return document.querySelector('[data-buy=\"{product}\"]').disabled");
    assert_eq!(browser.run(&disabled).await, true, "nobody can try in vain");
    assert_eq!(browser.run("return window.laid_out_once").await, true);
    browser.has_no_complaints().await;
    street.system.settled().await;
    assert_eq!(street.system.balance(VISA).await, (money.0 - 5000, money.1));
    street.close().await;
}

/// The stream of a page ends with its instance, and goes on at one that was not there when the page was laid out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_stays_live_when_its_instance_dies() {
    let mut street = Street::open(1).await;
    let product = street.system.product("Newt", 10.0, 5).await;
    let browser = street.visitor(true).await;
    browser.run("window.laid_out_once = true").await;
    street.system.start_shop().await;
    street.has(2).await;
    street.system.shops[0].kill();
    let (_, buyer) = street.system.user_at(1, "bob").await;
    buyer.post("/orders", &order(&product, 2, VISA)).await.expect(201);
    let stock = format!("[data-stock='{product}']");
    browser.wait_for_text(&stock, |text| text == "3 left").await;
    assert_eq!(browser.run("return window.laid_out_once").await, true);
    street.close().await;
}

/// Presses *Pay*, and kills the instance that has got the order once somebody has come to a point with it.
async fn pay_and_kill(street: &mut Street, browser: &Browser, point: &str) {
    let system = &mut street.system;
    let traps = system.traps.clone();
    for trap in &traps {
        trap.arm("tokenized");
    }
    let deaths = async {
        let serving = system.caught_any().await;
        traps[1 - serving].disarm();
        let mut held = serving;
        if point != "tokenized" {
            for trap in &traps {
                trap.arm(point);
            }
            traps[serving].release();
            held = system.caught_any().await;
        }
        for trap in &traps {
            trap.disarm();
        }
        system.shops[serving].kill();
        // By letters, another instance than the one that was asked may be at it.
        traps[held].release();
    };
    let paying = browser.click(".stack button");
    let began = Instant::now();
    tokio::join!(deaths, paying);
    assert!(began.elapsed() < DEADLINE, "nobody waits for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance_dies_between_pay_and_the_answer() {
    for point in ["tokenized", "placed", "after authorize", "after capture"] {
        eprintln!("the instance dies at {point:?}");
        let mut street = Street::open(2).await;
        let product = street.system.product("Newt", 10.0, 5).await;
        let money = street.system.balance(VISA).await;
        // Without scripts nothing but the form itself can be what makes it one order.
        let browser = street.visitor(point != "placed").await;
        to_the_till(&street, &browser, &product, VISA).await;
        pay_and_kill(&mut street, &browser, point).await;
        is_paid(&browser).await;
        judge(&street, &product, money).await;
        browser.click("a[href='/shop/orders']").await;
        let orders = browser
            .run("return document.querySelectorAll('[data-order]').length")
            .await;
        assert_eq!(orders, json!(1));
        street.close().await;
    }
}

/// Tab by tab to what is named so; each stop on the way must be seen.
async fn tab_to(browser: &Browser, name: &str) {
    let look = "const at = document.activeElement;
        const label = at.labels?.[0]?.innerText ?? at.innerText ?? '';
        const style = getComputedStyle(at);
        return { name: label.trim(), seen: at === document.body || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2) }";
    let mut stops = Vec::new();
    for _ in 0..STOPS_MAX {
        browser.press(TAB).await;
        let at = browser.run(look).await;
        assert_eq!(at["seen"], true, "the focus is not seen at {at}");
        if at["name"].as_str().unwrap().starts_with(name) {
            return;
        }
        stops.push(at["name"].clone());
    }
    panic!("the keyboard does not get to {name}, only to {stops:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_buys_by_keyboard_alone() {
    let street = Street::open(1).await;
    let product = street.system.product("Newt", 10.0, 5).await;
    let money = street.system.balance(VISA).await;
    let browser = Browser::open(&street.url("/")).await;
    let shows = async |title: &str| {
        browser.wait_for_text("h1", |text| text.starts_with(title)).await;
    };
    for (name, text) in [("Sign up", ""), ("User name", "ada"), ("Password", "short")] {
        tab_to(&browser, name).await;
        if text.is_empty() {
            browser.press(ENTER).await;
            shows("Sign up").await;
        } else {
            browser.type_text(text).await;
        }
    }
    // The browser itself says what is wrong and holds the form back; the field keeps the focus.
    browser.press(ENTER).await;
    browser.type_text(" as it was").await;
    browser.press(ENTER).await;
    browser.wait_for_text(".who", |text| text.contains("ada")).await;
    tab_to(&browser, "Skip to the content").await;
    browser.press(ENTER).await;
    tab_to(&browser, "Search").await;
    browser.type_text("newt").await;
    browser.press(ENTER).await;
    browser
        .wait_for_text("main > .dim", |text| text == "1 found")
        .await;
    tab_to(&browser, "Add to cart").await;
    browser.press(ENTER).await;
    shows("Your cart").await;
    tab_to(&browser, "Checkout").await;
    browser.press(ENTER).await;
    shows("Checkout").await;
    for card in [EMPTY, VISA] {
        tab_to(&browser, "Card number").await;
        browser.type_text(card).await;
        tab_to(&browser, "Pay 10.00 EUR").await;
        browser.press(ENTER).await;
        if card == EMPTY {
            let alert = browser
                .wait_for_text("body", |text| text.contains("insufficient-funds"))
                .await;
            assert!(alert.contains("Try another one"), "{alert}");
            let focused = browser.run("return document.activeElement.id").await;
            assert_eq!(focused, "error", "what went wrong is where the reader is");
        }
    }
    shows("Order").await;
    is_paid(&browser).await;
    street.system.settled().await;
    assert_eq!(street.system.stock(&product).await, 4);
    assert_eq!(street.system.balance(VISA).await, (money.0 - 1000, money.1));
    street.close().await;
}
