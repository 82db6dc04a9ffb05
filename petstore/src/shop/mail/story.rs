//! Whole stories of an order, told with the pure parts alone: letters arrive in any order that mailboxes allow, cards
//! answer as they like, and a cancel comes at any time.
//! Invariant: after every letter each piece is in one place, and when no letter is left the order has ended.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::life::Life;
use super::steps::shelve;
use crate::domain::{Line, OrderId, Paid, Status, Step, UserId};
use crate::store::{Actor, Errand, Letter, OrderRecord, PaymentOf, Phase, Post};

const PRODUCTS: [&str; 3] = ["1", "2", "3"];

struct Story {
    me: Actor,
    life: Life,
    shelves: BTreeMap<String, i64>,
    /// In the order in which they were written.
    letters: Vec<(Actor, Letter)>,
    cart: bool,
}

fn order(wanted: &[i64], with_card: bool, from_cart: bool) -> OrderRecord {
    let lines = PRODUCTS.iter().zip(wanted).filter(|(_, quantity)| **quantity > 0);
    let lines = lines.map(|(product, quantity)| Line {
        product: (*product).to_owned(),
        name: String::new(),
        species: String::new(),
        unit_minor: 1,
        quantity: *quantity,
    });
    OrderRecord {
        status: Status::Pending,
        created_ms: 0,
        changed_ms: 0,
        lines: lines.collect(),
        total_minor: 1,
        currency: "EUR".to_owned(),
        from_cart,
        payment: with_card.then(|| PaymentOf {
            id: "p".to_owned(),
            token: Some("t".to_owned()),
            brand: None,
            last4: None,
        }),
        decline: None,
        errand: Some(Errand::new(Phase::Gathering)),
    }
}

impl Story {
    /// Pieces on the shelf, in letters and in the order.
    fn pieces(&self, product: &str) -> i64 {
        let letters = self
            .letters
            .iter()
            .map(|(to, letter)| Post::new(to.clone(), letter.clone()));
        let in_letters: i64 = letters
            .filter_map(|post| {
                post.pieces()
                    .filter(|(of, _)| *of == product)
                    .map(|(_, pieces)| pieces)
            })
            .sum();
        let taken = self
            .life
            .record
            .as_ref()
            .map_or(0, |record| record.taken().get(product).copied().unwrap_or(0));
        self.shelves[product] + in_letters + taken
    }

    /// The first letter of one of the mailboxes.
    fn next(&mut self, choice: u8) -> Option<(Actor, Letter)> {
        let mut firsts: Vec<usize> = Vec::new();
        for (n, (to, _)) in self.letters.iter().enumerate() {
            if !firsts.iter().any(|first| self.letters[*first].0 == *to) {
                firsts.push(n);
            }
        }
        let at = *firsts.get(usize::from(choice).checked_rem(firsts.len())?)?;
        Some(self.letters.remove(at))
    }

    fn act(&mut self, to: &Actor, letter: Letter, choice: u8) {
        let me = self.me.clone();
        let answer = match (to, letter) {
            (Actor::Order { .. }, letter) => {
                let written = self.life.receive(letter, 1);
                self.letters.extend(written);
                return;
            }
            (Actor::Inventory { product }, letter) => {
                let stock = self.shelves.get_mut(product).unwrap();
                shelve(stock, product, &letter).expect("it is for an inventory")
            }
            (Actor::Card { .. }, Letter::Pay { step, .. }) => {
                let paid = paid(step, choice);
                (
                    me,
                    Letter::Paid {
                        step,
                        paid,
                        payment: None,
                    },
                )
            }
            (Actor::Cart { .. }, Letter::TakeCart { .. }) if choice.is_multiple_of(4) => {
                (me, Letter::CartChanged)
            }
            (Actor::Cart { .. }, Letter::TakeCart { .. }) => {
                self.cart = false;
                (me, Letter::CartTaken)
            }
            (Actor::Cart { .. }, Letter::FillCart { .. }) => {
                self.cart = true;
                (me, Letter::CartFilled)
            }
            (Actor::Notify { .. }, Letter::Refused(_)) => return,
            (to, letter) => panic!("{to:?} gets {letter:?}"),
        };
        self.letters.push(answer);
    }
}

/// Everything the contract of the payment service allows.
fn paid(step: Step, choice: u8) -> Paid {
    match (step, choice % 5) {
        (Step::Authorize, 0) | (Step::CancelPayment, 3) => Paid::Declined("x".to_owned()),
        (Step::Authorize | Step::Capture, 1) => Paid::Void,
        (Step::Capture | Step::CancelPayment, 2) => Paid::Captured,
        _ => Paid::Done,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_piece_is_lost_and_every_order_ends(
        stock in prop::collection::vec(0..4_i64, 3),
        wanted in prop::collection::vec(0..4_i64, 3),
        choices in prop::collection::vec(any::<u8>(), 60),
        cancels in prop::collection::vec(0..60_usize, 0..3),
        late in 0..120_usize,
        with_card: bool,
        from_cart: bool,
    ) {
        prop_assume!(wanted.iter().any(|wanted| *wanted > 0));
        let (user, id) = (UserId::parse("ada").unwrap(), OrderId::new(1));
        let me = Actor::order(&user, &id);
        let shelves = PRODUCTS.iter().map(|product| (*product).to_owned()).zip(stock.clone()).collect();
        let record = order(&wanted, with_card, from_cart);
        let life = Life::new(user, id, Some(record));
        let letters = vec![(me.clone(), Letter::Place)];
        let mut story = Story { me: me.clone(), life, shelves, letters, cart: from_cart };
        let mut seen = Vec::new();
        // A cancel at the last moment brings more letters, which end with what usually happens.
        for (n, choice) in choices.iter().chain(std::iter::repeat_n(&4, 60)).enumerate() {
            if cancels.contains(&n) {
                story.letters.push((me.clone(), Letter::Cancel));
            }
            if late == n {
                story.letters.push((me.clone(), Letter::TooLate));
            }
            let Some((to, letter)) = story.next(*choice) else { continue };
            story.act(&to, letter, *choice);
            for (product, stock) in PRODUCTS.iter().zip(&stock) {
                prop_assert_eq!(story.pieces(product), *stock, "product {}", product);
            }
            seen.extend(story.life.record.as_ref().map(|record| record.status));
        }
        prop_assert!(story.letters.is_empty(), "{:?}", story.letters);
        let short = wanted.iter().zip(&stock).any(|(wanted, stock)| wanted > stock);
        let Some(record) = &story.life.record else {
            // Refused: nothing was taken, and the cart is as it was.
            prop_assert!(short || from_cart);
            prop_assert_eq!(story.cart, from_cart);
            return Ok(());
        };
        prop_assert!(!short && record.status.is_ended() && record.errand.is_none(), "{:?}", record);
        prop_assert_eq!(record.status == Status::Confirmed || record.status == Status::Canceled, !with_card || record.status == Status::Canceled);
        if record.status == Status::PaymentFailed {
            prop_assert_eq!(story.cart, from_cart);
        }
        // From the pivot nothing leads back but a hold that expired.
        seen.dedup();
        let pivot = seen.iter().position(|status| *status == Status::Authorized);
        let failed_after = pivot.is_some_and(|pivot| seen[pivot..].contains(&Status::PaymentFailed));
        prop_assert!(!failed_after, "{:?}", seen);
    }
}
