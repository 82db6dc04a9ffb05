//! The rules of the house as functions from a file to its faults.
//! Invariant: they judge text that is handed to them and read nothing themselves, so that each is tried
//! on bad samples before it is trusted with the repository.

use std::path::Path;

use crate::source::{blank, functions, words};

pub(crate) const FILE_LINES_MAX: usize = 400;
pub(crate) const FUNCTION_LINES_MAX: usize = 70;
pub(crate) const HEADER_LINES_MAX: usize = 10;

/// One file, by its path from the root of the repository.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path == "Cargo.toml" || self.path.ends_with("/Cargo.toml")
    }

    fn fault(&self, line: usize, what: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, what.as_ref())
    }
}

pub(crate) fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![file.fault(
        FILE_LINES_MAX + 1,
        format!("{lines} lines; split it by ideas, at most {FILE_LINES_MAX}"),
    )]
}

pub(crate) fn function_length(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    let functions = functions(&blank(&file.text)).into_iter();
    let long = functions.filter(|function| function.lines > FUNCTION_LINES_MAX);
    long.map(|function| {
        let (name, lines) = (function.name, function.lines);
        file.fault(
            function.line,
            format!("fn {name} has {lines} lines; at most {FUNCTION_LINES_MAX}"),
        )
    })
    .collect()
}

pub(crate) fn header(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    let lines = file
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .count();
    match lines {
        0 => vec![file.fault(
            1,
            "begin with a //! header: what it is for, its invariant, what it must not know",
        )],
        1..=HEADER_LINES_MAX => Vec::new(),
        _ => vec![file.fault(
            1,
            format!("the header has {lines} lines; at most {HEADER_LINES_MAX}"),
        )],
    }
}

/// Split, so that this file does not find itself.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("for", " now"),
    concat!("unimple", "mented!"),
    concat!("XX", "X"),
];

pub(crate) fn unfinished(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for word in UNFINISHED {
            let mut found = line.match_indices(word);
            let alone = found.any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric));
            if alone {
                faults.push(file.fault(
                    index + 1,
                    format!("\"{word}\": finish it, or say what is so and why"),
                ));
            }
        }
    }
    faults
}

/// What may stand in which folder, when it may not stand everywhere.
struct Room {
    word: &'static str,
    only_in: &'static [&'static str],
}

const ROOMS: [Room; 5] = [
    Room {
        word: "openraft",
        only_in: &[
            "kvstore/src/raft/",
            "kvstore/src/machine/adapter",
            "kvstore/tests/",
        ],
    },
    Room {
        word: "rocksdb",
        only_in: &["kvstore/src/storage/", "kvstore/src/raft/", "kvstore/tests/"],
    },
    Room {
        word: "linfa",
        only_in: &["predictors/src/models"],
    },
    Room {
        word: "ndarray",
        only_in: &["predictors/src/models"],
    },
    Room {
        word: "SystemTime",
        only_in: &["cluster/service/src/"],
    },
];

/// What may not be named in a folder: each layer of a service leaves to the others what is theirs.
const BARRED: [(&str, &[&str], &str); 6] = [
    (
        "petstore/src/domain/",
        &["axum", "tokio", "kvstore_client", "payment_client"],
        "domain is pure",
    ),
    (
        "petstore/src/store/",
        &["axum", "payment_client"],
        "the store knows neither HTTP nor payments",
    ),
    (
        "petstore/src/shop/",
        &["Router", "Request", "Uri"],
        "the use cases know no routes",
    ),
    (
        "petstore/src/http/",
        &["Txn", "Condition", "Op", "KvClient"],
        "the edge knows no transactions",
    ),
    (
        "payment/src/domain/",
        &["axum", "tokio", "kvstore_client"],
        "domain is pure",
    ),
    (
        "payment/src/http/",
        &["Txn", "Condition", "Op", "KvClient"],
        "the edge knows no transactions",
    ),
];

pub(crate) fn layers(file: &File) -> Vec<String> {
    let barred = BARRED.iter().filter(|(folder, ..)| file.path.starts_with(folder));
    let mut faults = Vec::new();
    for (_, names, why) in barred.filter(|_| file.is_rust()) {
        let code = blank(&file.text);
        let named = words(&code).filter(|(_, word)| names.contains(word));
        faults.extend(named.map(|(line, word)| file.fault(line, format!("{word}: {why}"))));
    }
    faults
}

/// What the pure part of the state machine may not name: it has no clock, no randomness and no IO.
const IMPURE: [&str; 9] = [
    "tokio",
    "openraft",
    "rocksdb",
    "Instant",
    "SystemTime",
    "rand",
    "getrandom",
    "fs",
    "net",
];

pub(crate) fn rooms(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    let code = blank(&file.text);
    let pure = file.path.starts_with("kvstore/src/machine/apply");
    let mut faults = Vec::new();
    for (line, word) in words(&code) {
        let room = ROOMS.iter().find(|room| room.word == word);
        if let Some(Room { only_in, .. }) = room
            && !only_in.iter().any(|folder| file.path.starts_with(folder))
        {
            faults.push(file.fault(
                line,
                format!("{word} may be named only in {}", only_in.join(", ")),
            ));
        }
        if pure && IMPURE.contains(&word) {
            faults.push(file.fault(
                line,
                format!("{word}: apply has no clock, no randomness and no IO"),
            ));
        }
    }
    if pure && let Some(at) = code.find("std::time") {
        let line = 1 + code[..at].matches('\n').count();
        faults.push(file.fault(line, "std::time: apply has no clock, no randomness and no IO"));
    }
    faults
}

/// Which crates of ours each crate may import; `service ← kvstore-client ← the rest ← cluster`.
const DIRECTIONS: [(&str, &[&str]); 10] = [
    ("cluster/service", &[]),
    ("kvstore/client", &["service"]),
    ("kvstore", &["service", "kvstore-client"]),
    ("kvstore/mirror", &["service", "kvstore-client"]),
    ("payment/client", &["service", "kvstore-client"]),
    ("payment", &["service", "kvstore-client", "payment-client"]),
    ("petstore", &["service", "kvstore-client", "payment-client"]),
    ("petstore/gateway", &["service", "kvstore-client"]),
    ("predictors", &["service", "kvstore-client"]),
    (
        "cluster",
        &[
            "service",
            "kvstore-client",
            "kvstore",
            "mirror",
            "payment-client",
            "payment",
            "petstore",
            "gateway",
            "predictors",
        ],
    ),
];

/// Crates that only some of ours may depend on, and those that may.
const GUARDED: [(&str, &[&str]); 3] = [
    ("openraft", &["kvstore"]),
    ("rocksdb", &["kvstore"]),
    ("linfa", &["predictors"]),
];

pub(crate) fn directions(file: &File) -> Vec<String> {
    if !file.is_manifest() || file.path == "Cargo.toml" {
        return Vec::new();
    }
    let folder = file.path.trim_end_matches("/Cargo.toml");
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(known, _)| *known == folder) else {
        return vec![file.fault(1, "a crate in a room that the tidy test does not know")];
    };
    let ours = DIRECTIONS[DIRECTIONS.len() - 1].1;
    let mut faults = Vec::new();
    let services = allowed.contains(&"kvstore-client");
    for (line, name, _) in dependencies(&file.text) {
        // The tests of a service run it on a real store, and those of the shop with real payments and behind the real
        // gateway.
        let of_the_shop = folder == "petstore" && ["payment", "gateway"].contains(&name);
        let real = (services && name == "kvstore") || of_the_shop;
        let tested = real && is_for_tests(&file.text, line);
        if ours.contains(&name) && !allowed.contains(&name) && !tested {
            faults.push(file.fault(line, format!("{folder} may not import {name}")));
        }
        let guarded = GUARDED.iter().find(|(guarded, _)| *guarded == name);
        if guarded.is_some_and(|(_, may)| !may.contains(&folder)) {
            faults.push(file.fault(line, format!("{folder} may not link {name}")));
        }
    }
    faults
}

/// Whether a line stands among the dependencies of tests.
fn is_for_tests(manifest: &str, line: usize) -> bool {
    let before = manifest.lines().take(line);
    let section = before.filter(|line| line.trim().starts_with('[')).last();
    section.is_some_and(|section| section.trim() == "[dev-dependencies]")
}

pub(crate) fn versions(file: &File) -> Vec<String> {
    if !file.is_manifest() || file.path == "Cargo.toml" {
        return Vec::new();
    }
    let listed = dependencies(&file.text);
    let own = listed
        .into_iter()
        .filter(|(_, _, value)| !value.contains("workspace = true"));
    own.map(|(line, name, _)| {
        file.fault(
            line,
            format!("{name}: versions stand in the root Cargo.toml; write {name}.workspace = true"),
        )
    })
    .collect()
}

/// Line, name and value of each dependency of a manifest, of all kinds.
fn dependencies(manifest: &str) -> Vec<(usize, &str, String)> {
    let mut listed = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some((key, value)) = line.split_once('=') {
            let (name, rest) = key.trim().split_once('.').unwrap_or((key.trim(), ""));
            listed.push((index + 1, name, format!("{} ={value}", rest.trim())));
        }
    }
    listed
}

/// Integration tests are one binary a crate, the long ones apart; only one crate has a `main`.
pub(crate) fn binaries(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    let program = file.path.ends_with("src/main.rs") || file.path.contains("/src/bin/");
    if program && file.path != "cluster/src/main.rs" {
        return vec![file.fault(1, "only cluster has a main; services are libraries")];
    }
    let Some((_, test)) = file.path.split_once("/tests/") else {
        return Vec::new();
    };
    let known = ["it/", "long/", "tidy/", "tidy.rs"]
        .iter()
        .any(|known| test.starts_with(known));
    if known {
        return Vec::new();
    }
    vec![file.fault(
        1,
        "integration tests stand in tests/it or tests/long; the test runner knows these names",
    )]
}

const TOP_LEVEL: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "cluster.toml",
    "Makefile",
    "rust-toolchain.toml",
    "kvstore",
    "payment",
    "petstore",
    "predictors",
    "cluster",
];

/// Judges the names at the root; what git ignores, such as the data folder, is not part of the house.
pub(crate) fn top_level<'name>(names: impl Iterator<Item = &'name str>, ignored: &str) -> Vec<String> {
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let visible = names.filter(|name| !name.starts_with('.') && !ignored.contains(name));
    let strangers = visible.filter(|name| !TOP_LEVEL.contains(name));
    strangers
        .map(|name| format!("{name}:1: no other visible entry at the top level"))
        .collect()
}
