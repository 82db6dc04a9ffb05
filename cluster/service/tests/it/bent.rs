//! Bytes as no honest sender writes them: whole ones that were bent, and noise. For the tests of all that decodes.
//! Invariant: whatever the bytes, a decoder answers; it neither panics nor takes memory that the bytes do not have.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 20_000;
const NOISE_BYTES_MAX: usize = 300;
const BENDS_MAX: usize = 6;
/// What one process may take beyond what it has when it begins. Who believes a length that it is told needs more.
const MEMORY_BYTES: u64 = 512 << 20;

#[derive(Clone, Debug)]
enum Bend {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    /// The largest numbers there are, as lengths are written.
    Enlarge(Index, u8),
    /// A part of it once more, again and again.
    Repeat(Index, usize, u8),
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let place = any::<Index>;
    let one = prop_oneof![
        (place(), 0..8_u8).prop_map(|(at, bit)| Bend::Flip(at, bit)),
        place().prop_map(Bend::Cut),
        (place(), 1..16_usize).prop_map(|(at, count)| Bend::Remove(at, count)),
        (place(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Bend::Insert(at, bytes)),
        (place(), 1..10_u8).prop_map(|(at, bytes)| Bend::Enlarge(at, bytes)),
        (place(), 1..16_usize, 2..64_u8).prop_map(|(at, count, times)| Bend::Repeat(at, count, times)),
    ];
    vec(one, 1..BENDS_MAX)
}

fn bend(bytes: &mut Vec<u8>, bend: &Bend) {
    if bytes.is_empty() {
        return;
    }
    match bend {
        Bend::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Bend::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Bend::Remove(at, count) => {
            let from = at.index(bytes.len());
            let to = bytes.len().min(from + count);
            bytes.drain(from..to);
        }
        Bend::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Bend::Enlarge(at, count) => {
            let at = at.index(bytes.len());
            let mut large = vec![0xff; usize::from(*count) - 1];
            large.push(0x7f);
            let to = bytes.len().min(at + large.len());
            bytes.splice(at..to, large);
        }
        Bend::Repeat(at, count, times) => {
            let from = at.index(bytes.len());
            let part = bytes[from..bytes.len().min(from + count)].repeat(usize::from(*times));
            bytes.splice(from..from, part);
        }
    }
}

/// Gives the decoder bytes again and again: the whole ones, bent ones, and noise.
pub(crate) fn feed(whole: &[Vec<u8>], decode: impl Fn(&[u8])) {
    bound_memory();
    for bytes in whole {
        decode(bytes);
    }
    let bent = (any::<Index>(), bends(), Just(whole.to_vec())).prop_map(|(which, bends, whole)| {
        let mut bytes = whole[which.index(whole.len())].clone();
        for one in &bends {
            bend(&mut bytes, one);
        }
        bytes
    });
    let bytes = prop_oneof![4 => bent, 1 => vec(any::<u8>(), 0..NOISE_BYTES_MAX)];
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let fed = TestRunner::new(config).run(&bytes, |bytes| {
        decode(&bytes);
        Ok(())
    });
    if let Err(error) = fed {
        panic!("{error}");
    }
}

/// Holds for the whole process, which is the test's own.
fn bound_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
    // Where there is no such file, only panics are found.
    let Some(size_kib) = size else { return };
    let bound = Some(size_kib * 1024 + MEMORY_BYTES);
    let limit = rustix::process::Rlimit {
        current: bound,
        maximum: bound,
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("one may bound oneself");
}
