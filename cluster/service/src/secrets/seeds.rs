//! Which of the tokens open the store, and what each may do there when a cluster is made.
//! Invariant: no service may write what belongs to another one.
//! Later changes of the rules are replicated state and not known here.

use super::{Secret, Secrets};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Reading is included.
    Write,
}

#[derive(Debug, Clone)]
pub struct StoreTokenSeed {
    pub name: String,
    pub secret: Secret,
    /// Prefixes of keys; the empty one is all of them.
    pub rules: Vec<(String, Access)>,
}

const SEEDS: [(&str, &[(&str, Access)]); 6] = [
    ("root", &[("", Access::Write)]),
    (
        "petstore",
        &[("shop/", Access::Write), ("registry/petstore/", Access::Write)],
    ),
    (
        "payment",
        &[("pay/", Access::Write), ("registry/payment/", Access::Write)],
    ),
    (
        "predictors",
        &[
            ("predict/", Access::Write),
            ("registry/predictors/", Access::Write),
        ],
    ),
    ("gateway", &[("registry/", Access::Read)]),
    (
        "mirror",
        &[
            ("", Access::Read),
            ("registry/mirror/", Access::Write),
            ("mirror/", Access::Write),
        ],
    ),
];

impl Secrets {
    /// The tokens a new cluster is seeded with. The others are for services and unknown to the store.
    pub fn store_tokens(&self) -> Vec<StoreTokenSeed> {
        let mut seeds = Vec::with_capacity(SEEDS.len());
        for (name, rules) in SEEDS {
            let Some(secret) = self.token(name) else {
                continue;
            };
            let rules = rules.iter();
            seeds.push(StoreTokenSeed {
                name: name.to_owned(),
                secret: secret.clone(),
                rules: rules
                    .map(|(prefix, access)| ((*prefix).to_owned(), *access))
                    .collect(),
            });
        }
        seeds
    }
}
