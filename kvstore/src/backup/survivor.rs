//! What is known of the folders that a lost majority has left behind, and what they are worth together.
//! Invariant: only what was found vouches for anything. A node counts once, if it votes, belongs to the cluster, and
//! nothing says that its log lacks what it once had.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::raft::entry::log_id_parts;
use crate::raft::types::LogId;

/// What one member's folder holds.
#[derive(Clone, Debug)]
pub struct Survivor {
    pub folder: PathBuf,
    /// Which node it is of, and of which cluster, as far as it says so.
    pub id: Option<u64>,
    pub cluster_id: Option<String>,
    /// The last entry of its log, or of its state where the log ends before it.
    pub last: LogId,
    pub applied: u64,
    /// Of the cluster, as its log has them. While they were being changed there are two sets, and most of each count.
    pub voters: Vec<BTreeSet<u64>>,
    /// Why its log may lack what this member has acknowledged.
    pub doubts: Vec<String>,
    /// What was found damaged, if this member has marked its folder so: then its state may be wrong.
    pub damage: Option<String>,
}

impl Survivor {
    pub fn term(&self) -> u64 {
        log_id_parts(&self.last).0
    }

    pub fn index(&self) -> u64 {
        self.last.index
    }

    /// Whoever votes, in whichever set.
    pub fn all_voters(&self) -> BTreeSet<u64> {
        self.voters.iter().flatten().copied().collect()
    }
}

/// What survivors are worth together.
#[derive(Debug)]
pub struct Tally<'s> {
    /// Whose log goes furthest; of several, one that is not damaged.
    pub longest: &'s Survivor,
    /// The voters that are here with all that they ever had.
    pub whole: BTreeSet<u64>,
}

impl Tally<'_> {
    /// Whether everything that was acknowledged is in the longest log. It is where those who count could elect whoever
    /// has that log: so Raft makes sure that a leader has everything.
    pub fn is_majority(&self) -> bool {
        let sets = &self.longest.voters;
        let most_are_here = |set: &BTreeSet<u64>| 2 * set.intersection(&self.whole).count() > set.len();
        self.longest.cluster_id.is_some() && !sets.is_empty() && sets.iter().all(most_are_here)
    }
}

/// Refuses folders of more than one cluster: no log of one says anything about another.
pub fn tally(survivors: &[Survivor]) -> anyhow::Result<Tally<'_>> {
    are_of_one_cluster(survivors)?;
    // By term first: a longer log of an older term may hold what was never acknowledged.
    let longest = survivors.iter().max_by_key(|survivor| {
        (
            survivor.last,
            survivor.damage.is_none(),
            survivor.doubts.is_empty(),
        )
    });
    let longest = longest.context("no folder was named")?;
    let ids = |in_doubt: bool| {
        let some = survivors.iter();
        let some = some.filter(|survivor| survivor.doubts.is_empty() != in_doubt);
        some.filter_map(|survivor| survivor.id).collect::<BTreeSet<u64>>()
    };
    // Of a node that has two folders nobody knows which was its last.
    let whole = &(&longest.all_voters() & &ids(false)) - &ids(true);
    Ok(Tally { longest, whole })
}

fn are_of_one_cluster(survivors: &[Survivor]) -> anyhow::Result<()> {
    let known = survivors.iter();
    let mut known = known.filter_map(|survivor| Some((survivor.cluster_id.as_ref()?, &survivor.folder)));
    let Some((cluster, folder)) = known.next() else {
        return Ok(());
    };
    for (other, elsewhere) in known {
        ensure!(
            other == cluster,
            "{} is of cluster {cluster}, and {} is of cluster {other}: name folders of one cluster",
            folder.display(),
            elsewhere.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::entry::log_id;

    fn survivor(id: u64, index: u64) -> Survivor {
        Survivor {
            folder: format!("n{id}").into(),
            id: Some(id),
            cluster_id: Some("one".to_owned()),
            last: log_id(2, 1, index),
            applied: index,
            voters: vec![BTreeSet::from([1, 2, 3])],
            doubts: Vec::new(),
            damage: None,
        }
    }

    fn with(mut survivor: Survivor, change: impl FnOnce(&mut Survivor)) -> Survivor {
        change(&mut survivor);
        survivor
    }

    /// Who counts, and whether those are most of the voters.
    #[track_caller]
    fn counts(survivors: &[Survivor], ids: &[u64], is_majority: bool) {
        let tally = tally(survivors).unwrap();
        let counted = (
            tally.whole.iter().copied().collect::<Vec<u64>>(),
            tally.is_majority(),
        );
        assert_eq!(counted, (ids.to_vec(), is_majority), "{survivors:?}");
    }

    #[test]
    fn most_of_the_voters_vouch_for_the_longest_log_and_fewer_do_not() {
        counts(
            &[survivor(1, 9), survivor(2, 7), survivor(3, 8)],
            &[1, 2, 3],
            true,
        );
        counts(&[survivor(2, 7), survivor(3, 8)], &[2, 3], true);
        counts(&[survivor(2, 7)], &[2], false);
        let of_two = with(survivor(2, 7), |it| it.voters = vec![BTreeSet::from([1, 2])]);
        counts(&[of_two], &[2], false);
        let of_none = with(survivor(2, 7), |it| it.voters = Vec::new());
        counts(&[of_none], &[], false);
    }

    #[test]
    fn a_node_counts_once_and_a_learner_not_at_all() {
        let again = with(survivor(2, 9), |again| again.folder = "./n2".into());
        counts(&[survivor(2, 9), again], &[2], false);
        // Also where it is the learner whose log goes furthest.
        counts(&[survivor(4, 12)], &[], false);
        counts(&[survivor(2, 9), survivor(4, 12)], &[2], false);
        counts(&[survivor(2, 9), survivor(3, 9), survivor(4, 12)], &[2, 3], true);
    }

    #[test]
    fn who_may_have_lost_something_does_not_count() {
        let doubtful = |id, index| {
            with(survivor(id, index), |it| {
                it.doubts.push("its end is lost".to_owned());
            })
        };
        counts(&[survivor(2, 9), doubtful(3, 9)], &[2], false);
        counts(&[survivor(2, 9), survivor(3, 9), doubtful(1, 12)], &[2, 3], true);
        counts(&[survivor(2, 9), doubtful(2, 9), survivor(3, 9)], &[3], false);
        let unknown = with(doubtful(3, 9), |it| it.id = None);
        counts(&[survivor(2, 9), unknown], &[2], false);
    }

    #[test]
    fn while_voters_were_being_changed_it_takes_most_of_both_sets() {
        let changing = |id| {
            with(survivor(id, 9), |it| {
                it.voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([4, 5, 6])];
            })
        };
        counts(&[1, 4, 5, 6].map(changing), &[1, 4, 5, 6], false);
        counts(&[1, 2, 4, 5].map(changing), &[1, 2, 4, 5], true);
        // What counts is how the longest log has it.
        let before = survivor(3, 7);
        counts(&[changing(1), changing(2), before], &[1, 2, 3], false);
    }

    #[test]
    fn nothing_is_made_of_two_clusters_and_nobody_vouches_for_a_log_of_none() {
        let other = with(survivor(3, 12), |it| it.cluster_id = Some("two".to_owned()));
        let refused = tally(&[survivor(2, 9), other]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "n2 is of cluster one, and n3 is of cluster two: name folders of one cluster"
        );
        let unknown = |index| with(survivor(4, index), |it| it.cluster_id = None);
        counts(&[survivor(2, 9), survivor(3, 9), unknown(8)], &[2, 3], true);
        counts(&[survivor(2, 9), survivor(3, 9), unknown(12)], &[2, 3], false);
    }

    #[test]
    fn of_equal_logs_that_of_a_sound_member_is_taken() {
        let damaged = |id, index| with(survivor(id, index), |it| it.damage = Some("tables".to_owned()));
        for (survivors, taken) in [
            ([survivor(2, 9), damaged(3, 9)], 2),
            ([damaged(2, 9), survivor(3, 9)], 3),
            ([survivor(2, 9), damaged(3, 10)], 3),
        ] {
            assert_eq!(tally(&survivors).unwrap().longest.id, Some(taken));
            // The log itself is as good as any.
            counts(&survivors, &[2, 3], true);
        }
    }
}
