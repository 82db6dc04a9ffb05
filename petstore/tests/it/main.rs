//! Tests of the pet shop: real instances on free ports, a real store and real payments in a temporary folder.
//! `vessel` runs a process of the shop or of payment so that it can be killed, `system` starts them all, `purchase`
//! buys from them, `browser` looks at pages, `numbers` for card numbers; every other file is one feature, and `direct`
//! and `mailbox` run them all, each with one way to check out.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that panics has failed, which is what unwrap says here, and the seed of a schedule is told"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "the same tests run once with each way to check out"
)]

#[allow(dead_code, reason = "the tests of the store use all of it, these only a part")]
#[path = "../../../kvstore/tests/it/harness.rs"]
mod harness;
#[path = "../../../payment/tests/it/numbers.rs"]
mod numbers;
mod vessel;

#[path = "../../../cluster/tests/it/browser/mod.rs"]
mod browser;

mod direct;
mod mailbox;
