//! The simplest thing that payments could be: what every request must answer, one after the other.
//! Invariant: it knows nothing of counters, transfers or transactions, so that it cannot share their faults.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Authorized,
    Captured(i64),
    Canceled,
    Declined,
}

#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub(crate) state: State,
    /// Card and amount; `None` for an id that was canceled before it was seen.
    pub(crate) order: Option<(usize, i64, bool)>,
    pub(crate) refunds: BTreeMap<usize, i64>,
}

#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Pay {
        id: usize,
        card: usize,
        amount: i64,
        automatic: bool,
    },
    Capture {
        id: usize,
        amount: Option<i64>,
    },
    Cancel {
        id: usize,
    },
    Refund {
        id: usize,
        refund: usize,
        amount: i64,
    },
}

/// Status and code, `""` where it is no problem, and whether it was answered before.
pub(crate) type Expected = (u16, &'static str, bool);

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// What is available on each card.
    pub(crate) cards: Vec<i64>,
    pub(crate) payments: BTreeMap<usize, Paid>,
}

impl Model {
    pub(crate) fn new(cards: Vec<i64>) -> Self {
        Self {
            cards,
            payments: BTreeMap::new(),
        }
    }

    pub(crate) fn answer(&mut self, wish: &Wish) -> Expected {
        match *wish {
            Wish::Pay {
                id,
                card,
                amount,
                automatic,
            } => self.pay(id, (card, amount, automatic)),
            Wish::Capture { id, amount } => self.capture(id, amount),
            Wish::Cancel { id } => self.cancel(id),
            Wish::Refund { id, refund, amount } => self.refund(id, refund, amount),
        }
    }

    fn pay(&mut self, id: usize, order: (usize, i64, bool)) -> Expected {
        if let Some(known) = self.payments.get(&id) {
            return match (known.order, known.state) {
                (None, _) => (409, "payment-canceled", false),
                (Some(before), _) if before != order => (422, "payment-id-reused", false),
                (_, State::Declined) => (402, "card-declined", true),
                _ => (200, "", true),
            };
        }
        let (card, amount, automatic) = order;
        let enough = self.cards[card] >= amount;
        let state = match (enough, automatic) {
            (false, _) => State::Declined,
            (true, false) => State::Authorized,
            (true, true) => State::Captured(amount),
        };
        if enough {
            self.cards[card] -= amount;
        }
        self.payments.insert(
            id,
            Paid {
                state,
                order: Some(order),
                refunds: BTreeMap::new(),
            },
        );
        if enough {
            (201, "", false)
        } else {
            (402, "card-declined", false)
        }
    }

    fn capture(&mut self, id: usize, amount: Option<i64>) -> Expected {
        let Some(known) = self.payments.get_mut(&id) else {
            return (404, "payment-not-found", false);
        };
        match (known.state, known.order) {
            (State::Authorized, Some((card, held, _))) => {
                let amount = amount.unwrap_or(held);
                if amount > held {
                    return (422, "capture-exceeds-hold", false);
                }
                known.state = State::Captured(amount);
                self.cards[card] += held - amount;
                (200, "", false)
            }
            (State::Captured(captured), _) if amount.is_none_or(|amount| amount == captured) => {
                (200, "", true)
            }
            (State::Captured(_), _) => (422, "capture-amount-changed", false),
            (State::Declined, _) => (409, "payment-declined", false),
            _ => (409, "payment-canceled", false),
        }
    }

    fn cancel(&mut self, id: usize) -> Expected {
        let Some(known) = self.payments.get_mut(&id) else {
            let buried = Paid {
                state: State::Canceled,
                order: None,
                refunds: BTreeMap::new(),
            };
            self.payments.insert(id, buried);
            return (200, "", false);
        };
        match (known.state, known.order) {
            (State::Authorized, Some((card, held, _))) => {
                known.state = State::Canceled;
                self.cards[card] += held;
                (200, "", false)
            }
            (State::Captured(_), _) => (409, "payment-captured", false),
            _ => (200, "", true),
        }
    }

    fn refund(&mut self, id: usize, refund: usize, amount: i64) -> Expected {
        let Some(known) = self.payments.get_mut(&id) else {
            return (404, "payment-not-found", false);
        };
        let captured = match known.state {
            State::Captured(captured) => captured,
            State::Authorized => return (409, "payment-not-captured", false),
            State::Canceled => return (409, "payment-canceled", false),
            State::Declined => return (409, "payment-declined", false),
        };
        if let Some(before) = known.refunds.get(&refund) {
            return if *before == amount {
                (200, "", true)
            } else {
                (422, "refund-id-reused", false)
            };
        }
        let sum: i64 = known.refunds.values().sum();
        if sum + amount > captured {
            return (422, "refund-exceeds-capture", false);
        }
        known.refunds.insert(refund, amount);
        self.cards[known.order.unwrap().0] += amount;
        (201, "", false)
    }
}
