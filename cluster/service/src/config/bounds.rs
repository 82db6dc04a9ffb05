//! The least and the most each number may be.
//! Invariant: everything is bounded from both sides, so that nothing absurd can be configured.
//! What must hold between two settings stands in `check`.

use super::Config;
use super::check::Faults;
use super::place::Step;

/// The most that `limits.request_bytes_max` may be. A write travels between the nodes in one frame, with others before
/// it; that this fits is made sure of where the store is compiled.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The least that `limits.range_rows_max` may be. Nobody asks for more rows in one page, since a store that gives fewer
/// refuses that.
pub const RANGE_ROWS_MIN: usize = 2000;

/// The least that `limits.txn_ops_max` may be. No transaction of a service has more conditions or operations, since a
/// store that takes fewer refuses it; that each fits is made sure of where it is put together.
pub const TXN_OPS_MIN: usize = 128;

const REQUEST: u64 = REQUEST_BYTES_MAX as u64;
const ROWS: u64 = RANGE_ROWS_MIN as u64;
const OPS: u64 = TXN_OPS_MIN as u64;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_S: u64 = 86_400;

macro_rules! bounds {
    ($config:ident $faults:ident $section:ident: $(
        $key:ident $min:literal $($min_unit:ident)?, $max:literal $($max_unit:ident)? $(: $why:literal)?;
    )*) => {
        $(
            let bound = Bound {
                section: stringify!($section),
                key: stringify!($key),
                min: $min $(* $min_unit)?,
                max: $max $(* $max_unit)?,
                why: concat!("" $(, ": ", $why)?),
            };
            bound.check(u64::try_from($config.$section.$key).unwrap_or(u64::MAX), $faults);
        )*
    };
}

struct Bound {
    section: &'static str,
    key: &'static str,
    min: u64,
    max: u64,
    /// Where it is not plain.
    why: &'static str,
}

impl Bound {
    fn check(&self, value: u64, faults: &mut Faults<'_>) {
        let Self {
            section,
            key,
            min,
            max,
            why,
        } = self;
        if !(*min..=*max).contains(&value) {
            let what = format!("{section}.{key} = {value} must be between {min} and {max}{why}");
            faults.add(&[Step::Key(section), Step::Key(key)], what);
        }
    }
}

pub(super) fn check(config: &Config, faults: &mut Faults<'_>) {
    bounds! { config faults store:
        heartbeat_ms 5, 10_000;
        election_min_ms 20, 60_000;
        election_max_ms 20, 120_000;
        worker_threads 0, 1024;
        history_max_age_s 1, 365 DAY_S;
        history_bytes_max 1 MIB, 1024 GIB;
        snapshot_log_entries 10, 100_000_000;
        snapshot_log_bytes 1 MIB, 64 GIB;
        log_keep_entries 0, 100_000_000;
        log_keep_bytes 1 MIB, 1024 GIB;
        flush_every_s 1, 3600;
        memtable_mib 1, 4096;
        block_cache_mib 1, 1_048_576;
        records_cache_mib 0, 1_048_576;
        heads_cache_mib 1, 1_048_576;
        agreement_every_s 0, 86_400;
        slow_disk_ms 0, 60_000;
    }
    bounds! { config faults backup:
        every_s 0, 365 DAY_S;
        keep 1, 100_000;
    }
    // The least that keys, values and requests may be is what the store's contract says of them, which its callers go
    // by. As text in the JSON of a transaction, a value of the services may take twice the bytes that it has.
    bounds! { config faults limits:
        key_bytes_max 1 KIB, 4 KIB: "with less, the store would refuse keys that the services write";
        value_bytes_max 1 MIB, 1 REQUEST: "with less, the store would refuse values that the services write";
        request_bytes_max 4 MIB, 1 REQUEST: "with less, the store would refuse transactions that the services send";
        txn_ops_max 1 OPS, 10_000: "with less, the store would refuse transactions that the services send";
        delete_keys_max 1, 10_000_000;
        range_rows_max 1 ROWS, 100_000: "with less, the store would refuse pages that the services ask for";
        range_bytes_max 4 KIB, 256 MIB;
        watchers_max 1, 100_000;
        watch_buffer_bytes_max 4 KIB, 1 GIB;
        proposals_bytes_max 64 KIB, 16 GIB;
        proposals_max 1, 1_000_000;
        proposal_age_ms_max 10, 60_000;
        request_ms_max 100, 600_000;
        connections_max 1, 1_000_000;
        connections_per_address_max 1, 1_000_000;
        answers_bytes_max 64 KIB, 16 GIB;
        leases_max 16, 10_000_000;
        json_depth_max 4, 100;
        disk_free_bytes_min 0, 1024 GIB;
    }
    check_services(config, faults);
}

fn check_services(config: &Config, faults: &mut Faults<'_>) {
    bounds! { config faults payment:
        open_per_s_max 1, 1_000_000;
        hold_s 1, 365 DAY_S;
        token_s 1, 1 DAY_S;
        answer_s 1, 365 DAY_S;
        sweep_every_ms 50, 3_600_000;
        amount_minor_max 1, 1_000_000_000_000;
        body_bytes_max 1 KIB, 1 MIB;
        request_ms_max 100, 600_000;
        check_ms_max 100, 3_600_000;
        registration_ms 500, 3_600_000;
    }
    bounds! { config faults shop:
        session_s 1, 1 DAY_S;
        sign_in_tries_max 1, 1000;
        sign_in_window_s 1, 1 DAY_S;
        hashes_at_once 1, 1024;
        order_pending_s 1, 1 DAY_S;
        order_wait_ms 0, 600_000;
        orders_at_once 1, 100_000;
        adopt_every_ms 50, 3_600_000;
        mailbox_max 1, 1_000_000;
        actors_max 16, 1_000_000;
        registration_ms 500, 3_600_000;
        answer_s 1, 365 DAY_S;
        sweep_every_ms 50, 3_600_000;
        price_minor_max 1, 10_000_000_000;
        stock_max 1, 1_000_000_000;
        products_max 1, 100_000;
        events_max 1, 100_000;
        body_bytes_max 1 KIB, 1 MIB;
        request_ms_max 100, 600_000;
        audit_ms_max 100, 3_600_000;
    }
    bounds! { config faults gateway:
        attempts_max 1, 100;
        read_ms_max 10, 600_000;
        write_ms_max 10, 600_000;
        request_ms_max 100, 600_000;
        body_bytes_max 1 KIB, 64 MIB;
        answer_bytes_held 0, 64 MIB;
    }
    bounds! { config faults predictors:
        body_bytes_max 1 KIB, 64 MIB;
        instances_max 1, 1_000_000;
        request_ms_max 100, 600_000;
        registration_ms 500, 3_600_000;
    }
    bounds! { config faults consensus:
        round_ms 10, 60_000;
        models_max 1, 32;
        open_rounds_max 1, 10_000;
        round_s 1, 365 DAY_S;
        keep_s 1, 365 DAY_S;
        history_max 10, 1_000_000;
        answer_s 1, 365 DAY_S;
        sweep_every_ms 50, 3_600_000;
        answer_bytes_max 1 KIB, 1 MIB;
    }
}
