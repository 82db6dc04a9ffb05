//! Takes the power from a mounted file system: ext4's own call for it.
//! Invariant: what was synced before the call survives, what was not is gone, and later writes fail.
//! The only file that may be unsafe: there is no safe call for this.

use std::fs::File;
use std::path::Path;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// Does not write back the journal first, as a plug that is pulled does not.
const WITHOUT_FLUSH: u32 = 2;

pub(crate) fn pull_the_plug(mounted: &Path) -> std::io::Result<()> {
    let folder = File::open(mounted)?;
    #[allow(
        unsafe_code,
        reason = "the number and the type of the argument are those of the kernel's ext4.h"
    )]
    // SAFETY: the kernel reads one u32 through the pointer and keeps nothing of it.
    unsafe {
        ioctl(&folder, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH))?;
    }
    Ok(())
}
