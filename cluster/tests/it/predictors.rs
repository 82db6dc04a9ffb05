//! The prediction network as launched: sudden deaths of the consensus and of the store's leader while rounds are
//! settled, the commands, and its page in a browser.
//! Invariant: every report is repeated until it is answered; then each round is settled once and no token is missing.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use service::config::PredictorConfig;

use crate::browser::Browser;
use crate::harness::{Cluster, SOON, free_ports, wait_until};
use crate::load::{Random, say};

const PATIENCE: Duration = Duration::from_mins(1);
const REPORTERS: usize = 4;
const KILLS: usize = 6;

/// Models of these kinds, and so many instances of the consensus.
fn with_models(nodes: u64, models: &[(&str, &str)], instances: usize) -> Cluster {
    Cluster::with(nodes, |config| {
        let mut addresses = free_ports(models.len() + instances)
            .into_iter()
            .map(|port| format!("127.0.0.1:{port}"));
        for (kind, behave) in models {
            let name = if behave.is_empty() { kind } else { behave };
            config.models.push(PredictorConfig {
                name: (*name).to_owned(),
                address: addresses.next().unwrap(),
                model: (*kind).to_owned(),
                table: String::new(),
                label: String::new(),
                ignore: Vec::new(),
                impute: String::new(),
                behave: (*behave).to_owned(),
                seed: 1,
            });
        }
        config.consensus.addresses = addresses.collect();
    })
}

/// Repeats a call on one instance after the other until it is answered with this status.
async fn insist(cluster: &Cluster, target: &str, body: &Value, status: u16) -> Value {
    let oracle = cluster.token("oracle");
    let addresses = &cluster.config.consensus.addresses;
    let turn = RefCell::new(0);
    wait_until(target, PATIENCE, async || {
        let address = {
            let mut turn = turn.borrow_mut();
            *turn += 1;
            &addresses[*turn % addresses.len()]
        };
        let request = cluster.http.post(format!("http://{address}{target}"));
        match request.bearer_auth(&oracle).json(body).send().await {
            Err(error) => Err(format!("{error:?}")),
            Ok(answer) if answer.status() == status => {
                answer.json().await.map_err(|error| format!("{error:?}"))
            }
            Ok(answer) if answer.status() == 503 => Err(answer.text().await.unwrap_or_default()),
            Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap()),
        }
    })
    .await
}

async fn ledger(cluster: &Cluster) -> Value {
    let addresses = &cluster.config.consensus.addresses;
    wait_until("the ledger", PATIENCE, async || {
        let url = format!("http://{}/ledger", addresses[0]);
        let answer = cluster.http.get(url).send().await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let ledger: Value = answer.json().await.map_err(|error| format!("{error:?}"))?;
        if ledger["conserved"].is_boolean() {
            Ok(ledger)
        } else {
            Err(ledger.to_string())
        }
    })
    .await
}

/// Opens a round and settles it, as often as there is time.
async fn report(cluster: &Cluster, stop: &RefCell<bool>, settled: &RefCell<Vec<(String, Value)>>) {
    let flower = json!({"features": [5.1, 3.5, 1.4, 0.2]});
    while !*stop.borrow() {
        let round = insist(cluster, "/predict", &flower, 201).await;
        let id = round["round_id"].as_str().unwrap().to_owned();
        let body = json!({"round_id": id, "outcome": "setosa"});
        let receipt = insist(cluster, "/outcomes", &body, 200).await;
        settled.borrow_mut().push((id, receipt));
    }
}

#[tokio::test]
async fn sudden_deaths_settle_each_round_once() {
    let cluster = with_models(3, &[("naive-bayes", ""), ("logistic", "")], 2);
    cluster.up().await;
    let (stop, settled) = (RefCell::new(false), RefCell::new(Vec::new()));
    let load = join_all((0..REPORTERS).map(|_| report(&cluster, &stop, &settled)));
    let kills = async {
        let mut random = Random::seeded();
        for kill in 0..KILLS {
            let victim = match kill % 3 {
                0 => "consensus".to_owned(),
                1 => cluster.leader().await,
                _ => "consensus2".to_owned(),
            };
            // Chance chooses the moment, so that every step of a settlement is met.
            tokio::time::sleep(Duration::from_millis(random.below(300))).await;
            cluster.kill(&victim).await;
            let before = settled.borrow().len();
            wait_until("settlements go on", PATIENCE, async || {
                let now = settled.borrow().len();
                if now > before + 5 {
                    Ok(())
                } else {
                    Err(format!("{now} after {before}"))
                }
            })
            .await;
            cluster.run(&["start", &victim, "--wait"]).await.ok();
        }
        *stop.borrow_mut() = true;
    };
    tokio::join!(load, kills);
    let settled = settled.into_inner();
    say(&format!("{} rounds settled under {KILLS} kills", settled.len()));
    let mut numbers: Vec<u64> = Vec::new();
    for (id, receipt) in &settled {
        assert_eq!(receipt["round_id"], **id);
        numbers.push(receipt["settlement"].as_u64().unwrap());
        let body = json!({"round_id": id, "outcome": 0});
        assert_eq!(insist(&cluster, "/outcomes", &body, 200).await, *receipt);
    }
    numbers.sort_unstable();
    // Every settlement belongs to one acknowledged round, and the other way round.
    assert_eq!(numbers, (0..settled.len() as u64).collect::<Vec<_>>());
    let ledger = ledger(&cluster).await;
    assert_eq!(
        (&ledger["conserved"], &ledger["settlements"]),
        (&json!(true), &json!(settled.len()))
    );
}

#[tokio::test]
async fn the_launched_network_is_measured_and_judged() {
    let cluster = with_models(1, &[("knn", ""), ("tree", "")], 1);
    cluster.up().await;
    let status = cluster.status().await;
    let processes = status["processes"].as_array().unwrap().iter();
    let names: Vec<_> = processes
        .map(|one| (one["name"].clone(), one["kind"].clone()))
        .collect();
    let expected = [
        ("n1", "node"),
        ("knn", "predictor"),
        ("tree", "predictor"),
        ("consensus", "consensus"),
    ];
    assert_eq!(names, expected.map(|(name, kind)| (json!(name), json!(kind))));
    for work in ["model", "consensus", "outcomes"] {
        let bench = [
            "bench",
            "predict",
            "--clients",
            "4",
            "--seconds",
            "1",
            "--json",
            "--work",
            work,
        ];
        let report = cluster.run(&bench).await.json();
        assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(report["errors"], json!({}), "{report}");
    }
    assert_eq!(ledger(&cluster).await["conserved"], true);
    judge(&cluster).await;
}

/// The commands that need no process.
async fn judge(cluster: &Cluster) {
    let page = cluster.data().join("report.html");
    let path = page.to_str().unwrap();
    let evaluate = [
        "predictors",
        "evaluate",
        "--repeats",
        "1",
        "--json",
        "--report",
        path,
    ];
    let evaluation = cluster.run(&evaluate).await.json();
    assert_eq!(evaluation["models"].as_array().unwrap().len(), 5, "{evaluation}");
    assert!(evaluation["consensus"]["accuracy"].as_f64().unwrap() > 0.9);
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
    let table = cluster.data().join("gaps.csv");
    std::fs::write(&table, "a,b,kind\n1,NA,x\n2,3,y\n").unwrap();
    let refused = cluster
        .run(&["predictors", "evaluate", "--data", table.to_str().unwrap()])
        .await;
    let said = refused.fails(1);
    assert!(
        said.contains("gaps.csv:2: column \"b\": the number is missing"),
        "{said}"
    );
    let simulate = [
        "predictors",
        "simulate",
        "--scenario",
        "flipper",
        "--seeds",
        "2",
        "--json",
    ];
    let simulation = cluster.run(&simulate).await.json();
    assert_eq!(
        (&simulation["conserved"], &simulation["ejected_in"]),
        (&json!(true), &json!(2))
    );
}

/// Waits until an element is there whose text is as it should be.
async fn shows(browser: &Browser, selector: &str, text: &str) {
    let script = format!("return document.querySelector('{selector}')?.innerText ?? null");
    wait_until(selector, SOON, async || {
        let seen = browser.run(&script).await;
        let holds = seen.as_str().is_some_and(|seen| seen.contains(text));
        if holds { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_page_shows_an_adversary_losing_its_stake() {
    let models = [
        ("naive-bayes", ""),
        ("knn", ""),
        ("logistic", ""),
        ("tree", "always-wrong"),
    ];
    let cluster = with_models(1, &models, 1);
    cluster.up().await;
    let browser = Browser::open(&format!("http://{}/", cluster.config.consensus.addresses[0])).await;
    shows(&browser, "#consensus strong", "versicolor").await;
    // A flower with the smallest petals.
    let moved = "for (const [name, value] of [['pl', 1.4], ['pw', 0.2]]) {
        const slider = document.querySelector(`input[name=${name}]`);
        slider.value = value;
        slider.dispatchEvent(new Event('input', { bubbles: true }));
    }";
    browser.run(moved).await;
    shows(&browser, "#consensus strong", "setosa").await;
    let bad = "#models tr[data-model=always-wrong]";
    shows(&browser, &format!("{bad} .stake"), "1000.00").await;
    browser.run("document.getElementById(\"play\").click()").await;
    shows(&browser, "#played", "50 of 50 rounds played").await;
    shows(&browser, bad, "ejected").await;
    shows(&browser, "#ledger", "nothing appeared or vanished").await;
    for model in ["naive-bayes", "knn", "logistic"] {
        shows(&browser, &format!("#models tr[data-model={model}]"), "setosa").await;
    }
    let lines = "return document.querySelectorAll(\"#plot polyline\").length";
    assert_eq!(browser.run(lines).await, json!(4));
    watch_the_plot(&cluster, &browser).await;
    browser.has_no_complaints().await;
}

/// The line of the adversary falls, for its stake as for its trust, and the plot goes on by itself.
async fn watch_the_plot(cluster: &Cluster, browser: &Browser) {
    let falls = "const line = document.querySelector('#plot polyline[data-model=always-wrong]');
        const heights = line.getAttribute('points').split(' ').map((point) => Number(point.split(',')[1]));
        return document.getElementById('plot').textContent.includes(UNIT) && heights.at(-1) - heights[0] > 30";
    for (choice, unit) in [("stake", "'round 50'"), ("trust", "'1.00'")] {
        let choose = format!("document.querySelector('input[name=what][value={choice}]').click()");
        browser.run(&choose).await;
        holds(browser, choice, &falls.replace("UNIT", unit)).await;
    }
    insist(cluster, "/play", &json!({"rounds": 1}), 200).await;
    let grown = "return document.getElementById('plot').textContent.includes('round 51')";
    holds(browser, "the plot to go on", grown).await;
}

async fn holds(browser: &Browser, what: &str, script: &str) {
    wait_until(what, SOON, async || {
        let seen = browser.run(script).await;
        if seen == json!(true) {
            Ok(())
        } else {
            Err(browser.text("#plot").await)
        }
    })
    .await;
}
