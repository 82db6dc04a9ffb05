//! Cancels by letter: what is answered, and what the order makes of the letter when it gets to it.

use serde_json::json;
use service::tasks::Tasks;

use super::purchase::{becomes, order_unwaited};
use super::system::{System, VISA, order};
use crate::harness::wait_for;

/// The order was read before its card had said yes, and the letter comes when the money is taken: it is given back. So
/// nobody may hear in between that it cannot be canceled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_is_carried_out_was_not_refused() {
    for (wait_ms, status) in [(200, 202), (10_000, 200)] {
        let system = System::start_with(1, 2, |config| config.order_wait_ms = wait_ms).await;
        let (_, client) = system.user("ada").await;
        let (stock, money) = (system.stock("6").await, system.balance(VISA).await);
        system.traps[0].arm("before authorize");
        let made = order_unwaited(&client, &order("6", 2, VISA)).await;
        let place = made.header("location").to_owned();
        system.traps[0].caught().await;
        system.traps[1].arm("read to be canceled");
        let elsewhere = system.at(1, &client);
        let target = format!("{place}/cancel");
        let canceling =
            Tasks::new().spawn("cancel", async move { elsewhere.post(&target, &json!({})).await });
        system.traps[1].caught().await;
        // The order stands still when it is authorized; its card goes on.
        system.traps[0].arm("authorized");
        system.traps[0].release();
        system.traps[0].caught().await;
        wait_for("the money to be taken", async || {
            let letters = system.letters("").await;
            if letters.iter().any(|key| key.contains("/order/")) {
                Ok(())
            } else {
                Err(letters)
            }
        })
        .await;
        system.traps[1].release();
        wait_for("the letter", async || {
            let letters = system.letters("/cancel").await;
            if letters.is_empty() { Err(letters) } else { Ok(()) }
        })
        .await;
        if status == 202 {
            // The time is over before the order has looked at it.
            wait_for("the answer", async || {
                canceling.is_finished().then_some(()).ok_or("it waits")
            })
            .await;
        }
        system.traps[0].release();
        let canceled = canceling.await.unwrap();
        assert_eq!(canceled.status, status, "{}", canceled.text());
        becomes(&client, &place, "refunded").await;
        assert_eq!(system.stock("6").await, stock);
        assert_eq!(system.balance(VISA).await, money);
        system.stop().await;
    }
}
