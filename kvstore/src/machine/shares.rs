//! How much of the room for kept answers each token takes, so that one need not be given all of it.
//!
//! Every node counts that for itself, beside the state: nothing that is applied may depend on it. Invariant: it says
//! what the database holds, so all shares together are the state's `answers_bytes`. It must not know what anybody is
//! given.

use std::collections::BTreeMap;

/// Bytes by the names of their owners, or what one batch changes of them: modulo 2^64, since a batch may take more from
/// an owner than it adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    by_owner: BTreeMap<String, u64>,
}

impl Shares {
    pub fn of(&self, owner: &str) -> u64 {
        self.by_owner.get(owner).copied().unwrap_or(0)
    }

    pub(crate) fn grow(&mut self, owner: &str, bytes: u64) {
        if let Some(share) = self.by_owner.get_mut(owner) {
            *share = share.wrapping_add(bytes);
        } else {
            self.by_owner.insert(owner.to_owned(), bytes);
        }
    }

    pub(super) fn shrink(&mut self, owner: &str, bytes: u64) {
        self.grow(owner, bytes.wrapping_neg());
    }

    /// What a batch has changed.
    pub(super) fn learn(&mut self, changes: &Self) {
        for (owner, bytes) in &changes.by_owner {
            self.grow(owner, *bytes);
            // Its token may be gone for good.
            if self.of(owner) == 0 {
                self.by_owner.remove(owner);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.by_owner.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::batching::entries;
    use super::super::small::opened;

    #[test]
    fn a_restart_and_an_installed_snapshot_find_the_same_shares() {
        let folder = tempfile::tempdir().expect("a folder");
        let [here, there] = ["n1", "n2"].map(|name| folder.path().join(name));
        let machine = opened(&here);
        machine.apply(entries().collect()).expect("it applies");
        let shares = machine.shares();
        assert_eq!(shares.total(), machine.state().answers_bytes);
        for owner in ["", "one", "two"] {
            assert!(shares.of(owner) > 0, "{owner} holds nothing of {shares:?}");
            assert_eq!(machine.share_of(owner), shares.of(owner));
        }
        let other = opened(&there);
        let incoming = other.incoming_folder();
        machine
            .generation()
            .db()
            .checkpoint(&incoming)
            .expect("a copy is made");
        other.install(&incoming).expect("the copy is installed");
        assert_eq!(other.shares(), shares);
        // Nor does it matter which version wrote what a restart finds.
        machine.generation().db().make_older();
        for machine in [machine, other] {
            machine
                .generation()
                .db()
                .flush()
                .expect("the database is flushed");
        }
        for folder in [here, there] {
            assert_eq!(opened(&folder).shares(), shares);
        }
    }
}
