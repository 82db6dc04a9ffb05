//! How many files and connections this process may have open at once, and how many of them are for connections.
//! Invariant: connections leave to the files what those may need: a node that cannot open a table ends, while who is
//! refused connects again.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a node may need besides the connections of its clients: the files of both its databases, which bound them to 256
/// and 512 (the latter twice while a snapshot of another member takes the place of the state), the peer port, which
/// bounds its connections to 320, and files of snapshots that are on their way. Services need less: their own calls.
pub const BESIDE_CLIENTS: usize = 2048;

/// More than can be configured. Where nothing bounds them, some programs go through all numbers that a file might have
/// when they start, and what we start has our limit.
const RAISED_MAX: u64 = 1 << 20;

/// What macOS allows where it says that it allows anything.
const RAISED_MIN: u64 = 10_240;

/// Takes what this process may have. The soft limit that it begins with, often 1024, is not meant for servers but kept
/// low for programs that cannot deal with more.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let all = maximum.unwrap_or(RAISED_MAX).min(RAISED_MAX);
    for files in [all, all.min(RAISED_MIN)] {
        let raised = Rlimit {
            current: Some(files),
            maximum,
        };
        // Where even that is refused, the process goes on with what it has, and says so when it serves.
        if current.is_none_or(|has| has >= files) || setrlimit(Resource::Nofile, raised).is_ok() {
            return;
        }
    }
}

/// What this process may have; nothing where nothing bounds it.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many connections of clients a process with this limit takes, which is told to take at most so many.
pub fn connections(limit: Option<u64>, wanted: usize) -> usize {
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    // With so few files that all might be needed for something else, it is better to serve somebody.
    wanted.min(limit.saturating_sub(BESIDE_CLIENTS).max(limit / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_to_files_what_those_may_need() {
        let beside = BESIDE_CLIENTS as u64;
        for (limit, taken) in [
            (None, 10_000),
            (Some(u64::MAX), 10_000),
            (Some(10_000 + beside), 10_000),
            (Some(9_999 + beside), 9_999),
            (Some(4096), 2048),
            (Some(1200), 300),
            (Some(1024), 256),
        ] {
            assert_eq!(connections(limit, 10_000), taken, "{limit:?}");
        }
        assert_eq!(connections(Some(1024), 64), 64);
    }

    #[test]
    fn what_may_be_had_is_taken() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let least = maximum.unwrap_or(u64::MAX).min(RAISED_MIN);
        assert!(
            current.is_none_or(|has| has >= least),
            "{current:?} of {maximum:?}"
        );
    }
}
