//! Tests of the launched binary: real processes, real sockets, a folder of their own for each test.
//! `harness` starts and breaks clusters, `load` works on them and checks, `browser` looks at pages; every other
//! file is one feature.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without, it may demand")]

mod browser;
mod harness;
mod load;

mod backup;
mod bench;
mod chaos;
mod client;
mod console;
mod console_guard;
mod demo;
mod deployed;
mod doctor;
mod faults;
mod interrupted;
mod kv;
mod kv_admin;
mod kv_hold;
mod kv_patience;
mod kv_unknown;
mod kv_watch;
mod launcher;
mod logs;
mod mirror;
mod mirror_catalogue;
mod open_files;
mod outlived;
mod payment;
mod predictors;
mod proofs;
mod shop;
mod supervisor;
mod tls;
mod usage;
mod written;
