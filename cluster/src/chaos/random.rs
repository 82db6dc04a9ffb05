//! Chance that can be repeated: numbers that follow from a seed.
//! Invariant: the same seed gives the same numbers.

/// `SplitMix64`: short, and good enough to choose victims and moments.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn choose<'list, T>(&mut self, list: &'list [T]) -> &'list T {
        let index = self.below(u64::try_from(list.len()).expect("a list is short"));
        &list[usize::try_from(index).expect("a list is short")]
    }
}
