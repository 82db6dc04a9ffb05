//! The rules of the house, checked on every file of the repository, each by a test of its own.
//! Invariant: every rule is also shown to fail on a bad sample; a checker that cannot fail checks nothing.
//! A fault names file and line.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test, with its place"
)]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::File;

/// Asked for when it runs: checkouts that share a target folder share the binary too.
fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Every text file that git would track: nothing hidden, built or made while running.
fn repository() -> Vec<File> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let made = folder == root && ["target", "data"].contains(&name.as_str());
            if name.starts_with('.') || made {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if ["rs", "toml", "md", "html", "js", "css"]
                .iter()
                .any(|end| name.ends_with(&format!(".{end}")))
            {
                let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                // A file that an editor just moved away is not there to be judged.
                if let Ok(text) = fs::read_to_string(&path) {
                    files.push(File { path: relative, text });
                }
            }
        }
    }
    assert!(
        files.len() > 30,
        "found only {} files in {}",
        files.len(),
        root.display()
    );
    files
}

#[track_caller]
fn holds(rule: fn(&File) -> Vec<String>) {
    let mut faults: Vec<String> = repository().iter().flat_map(rule).collect();
    faults.sort();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn files_are_short() {
    holds(rules::length);
}

#[test]
fn functions_are_short() {
    holds(rules::function_length);
}

#[test]
fn files_say_what_they_are_for() {
    holds(rules::header);
}

#[test]
fn nothing_is_left_unfinished() {
    holds(rules::unfinished);
}

#[test]
fn crates_are_named_only_in_their_rooms() {
    holds(rules::rooms);
}

#[test]
fn layers_keep_to_themselves() {
    holds(rules::layers);
}

#[test]
fn imports_go_one_way() {
    holds(rules::directions);
}

#[test]
fn versions_stand_in_the_root_manifest() {
    holds(rules::versions);
}

#[test]
fn binaries_have_the_known_names() {
    holds(rules::binaries);
}

#[test]
fn the_top_level_holds_only_what_it_should() {
    let entries = fs::read_dir(root()).unwrap();
    let names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let faults = rules::top_level(names.iter().map(String::as_str), &ignored);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

mod bad_samples {
    use super::rules::{self, File};
    use super::source::{blank, functions};

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[track_caller]
    fn faults(rule: fn(&File) -> Vec<String>, path: &str, text: &str, starts: &[&str]) {
        let found = rule(&file(path, text));
        let same = found.len() == starts.len()
            && found
                .iter()
                .zip(starts)
                .all(|(found, start)| found.starts_with(start));
        assert!(same, "expected {starts:?}, found {found:?}");
    }

    #[test]
    fn a_long_file() {
        faults(rules::length, "a.rs", &"\n".repeat(400), &[]);
        faults(rules::length, "a.rs", &"\n".repeat(401), &["a.rs:401: 401 lines"]);
    }

    #[test]
    fn a_long_function() {
        let function = |lines: usize| format!("//! a\n\nfn long(\n) {{{}}}\n", "\n".repeat(lines - 2));
        faults(rules::function_length, "a.rs", &function(70), &[]);
        faults(
            rules::function_length,
            "a.rs",
            &function(71),
            &["a.rs:3: fn long has 71 lines"],
        );
        let method = format!(
            "impl A {{\n  async fn b<'a>(x: [u8; 2]) -> C where D: E {{{}}}\n}}",
            "\n".repeat(80)
        );
        faults(
            rules::function_length,
            "a.rs",
            &method,
            &["a.rs:2: fn b has 81 lines"],
        );
    }

    #[test]
    fn braces_that_are_no_code() {
        let text = "fn a() { \"}\"; '}'; b'}'; '\\''; r#\"}\"}\"#; /* } /* } */ } */ // }\n x }\nfn b();\n";
        let found = functions(&blank(text));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].lines), ("a", 2));
        assert_eq!(blank("a \"b\nc\" 'd 'e'"), "a   \n   'd    ");
    }

    #[test]
    fn a_file_without_or_with_too_long_a_header() {
        faults(rules::header, "a.rs", "use b;\n", &["a.rs:1: begin with"]);
        faults(rules::header, "a.rs", &"//! b\n".repeat(10), &[]);
        faults(
            rules::header,
            "a.rs",
            &"//! b\n".repeat(11),
            &["a.rs:1: the header has 11"],
        );
    }

    #[test]
    fn unfinished_work() {
        let text = concat!(
            "a\n// FIX",
            "ME later\n to",
            "do!()\nthis is enough for",
            " now\n"
        );
        faults(
            rules::unfinished,
            "a.md",
            text,
            &["a.md:2:", "a.md:3:", "a.md:4:"],
        );
    }

    #[test]
    fn a_crate_named_in_the_wrong_room() {
        let text = "//! openraft in words is fine\nuse openraft::Raft;\nlet a = \"rocksdb\";\n";
        faults(rules::rooms, "kvstore/src/raft/mod.rs", text, &[]);
        faults(
            rules::rooms,
            "kvstore/src/api/kv.rs",
            text,
            &["kvstore/src/api/kv.rs:2: openraft"],
        );
        faults(
            rules::rooms,
            "cluster/src/main.rs",
            "fn a() { rocksdb::DB::open(); }",
            &["cluster/src/main.rs:1: rocksdb"],
        );
    }

    #[test]
    fn a_clock_or_io_in_the_pure_part() {
        let path = "kvstore/src/machine/apply.rs";
        faults(
            rules::rooms,
            path,
            "use std::time::Duration;",
            &[&format!("{path}:1: std::time")],
        );
        faults(
            rules::rooms,
            path,
            "\nlet a = Instant::now();",
            &[&format!("{path}:2: Instant")],
        );
        faults(
            rules::rooms,
            path,
            "\nuse tokio::sync;",
            &[&format!("{path}:2: tokio")],
        );
        faults(
            rules::rooms,
            "kvstore/src/machine/adapter.rs",
            "use tokio::sync;",
            &[],
        );
    }

    #[test]
    fn a_layer_that_knows_too_much() {
        let text = "//! axum in words\nuse axum::Router;\nlet a = \"Txn\";\nTxn::new()\n";
        faults(
            rules::layers,
            "petstore/src/store/once.rs",
            text,
            &["petstore/src/store/once.rs:2: axum: the store knows"],
        );
        faults(
            rules::layers,
            "petstore/src/http/orders.rs",
            text,
            &["petstore/src/http/orders.rs:4: Txn: the edge knows"],
        );
        faults(rules::layers, "petstore/src/run.rs", text, &[]);
    }

    #[test]
    fn an_import_against_the_direction() {
        let text =
            "[dependencies]\nservice.workspace = true\nkvstore.workspace = true\nrocksdb.workspace = true\n";
        let path = "kvstore/client/Cargo.toml";
        faults(
            rules::directions,
            path,
            text,
            &[&format!("{path}:3:"), &format!("{path}:4:")],
        );
        faults(
            rules::directions,
            "kvstore/Cargo.toml",
            "[dependencies]\nrocksdb.workspace = true\n",
            &[],
        );
        let tested =
            "[dependencies]\nkvstore.workspace = true\n[dev-dependencies]\nkvstore.workspace = true\n";
        faults(
            rules::directions,
            "petstore/Cargo.toml",
            tested,
            &["petstore/Cargo.toml:2:"],
        );
        let sideways = "[dev-dependencies]\npayment.workspace = true\n";
        faults(
            rules::directions,
            "predictors/Cargo.toml",
            sideways,
            &["predictors/Cargo.toml:2:"],
        );
        faults(rules::directions, "petstore/Cargo.toml", sideways, &[]);
        faults(
            rules::directions,
            "petstore/Cargo.toml",
            "[dependencies]\npayment.workspace = true\n",
            &["petstore/Cargo.toml:2:"],
        );
        faults(
            rules::directions,
            "elsewhere/Cargo.toml",
            "",
            &["elsewhere/Cargo.toml:1: a crate in a room"],
        );
    }

    #[test]
    fn a_version_away_from_the_root() {
        let text = "[package]\nversion = \"1\"\n[dependencies]\na = \"1\"\nb.workspace = true\nc = { workspace = true }\n";
        faults(
            rules::versions,
            "kvstore/Cargo.toml",
            text,
            &["kvstore/Cargo.toml:4: a"],
        );
        faults(
            rules::versions,
            "Cargo.toml",
            "[workspace.dependencies]\na = \"1\"\n",
            &[],
        );
    }

    #[test]
    fn a_binary_of_an_unknown_name() {
        faults(
            rules::binaries,
            "kvstore/src/main.rs",
            "",
            &["kvstore/src/main.rs:1: only cluster"],
        );
        faults(
            rules::binaries,
            "kvstore/tests/slow/main.rs",
            "",
            &["kvstore/tests/slow/main.rs:1:"],
        );
        faults(rules::binaries, "kvstore/tests/it/slow.rs", "", &[]);
    }

    #[test]
    fn a_stranger_at_the_top_level() {
        let names = ["Cargo.toml", ".ci", "data", "scripts", "kvstore"];
        let faults = rules::top_level(names.into_iter(), "/target\n/data\n");
        assert_eq!(faults, ["scripts:1: no other visible entry at the top level"]);
    }
}
