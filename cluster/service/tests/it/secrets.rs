//! `secrets.toml`: made once, private, never shown.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Barrier;

use insta::assert_snapshot;
use service::secrets::{self, FILE_NAME, Secret, TOKEN_NAMES};

fn write(data: &Path, text: &str) {
    let path = data.join(FILE_NAME);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

fn refused(data: &Path) -> String {
    let error = secrets::load(data).unwrap_err();
    format!("{error:#}").replace(&data.display().to_string(), "DATA")
}

#[test]
fn the_first_start_makes_them_and_the_next_one_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = secrets::load_or_create(&data).unwrap();
    assert_eq!(secrets::load_or_create(&data).unwrap(), made);
    assert_eq!(secrets::load(&data).unwrap(), made);
    let mode = fs::metadata(data.join(FILE_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let entries: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries, [FILE_NAME], "something was left behind");
    let mut different: BTreeSet<&str> = TOKEN_NAMES
        .iter()
        .map(|name| made.token(name).unwrap().expose())
        .collect();
    different.extend([
        made.keys.cluster.expose(),
        made.keys.card_hmac_1.expose(),
        made.shop.admin_password.expose(),
    ]);
    assert_eq!(different.len(), 12, "two secrets are the same");
    assert!(different.iter().all(|secret| secret.len() == 64));
}

#[test]
fn starters_at_the_same_moment_agree() {
    let folder = tempfile::tempdir().unwrap();
    let start = Barrier::new(8);
    let all = std::thread::scope(|scope| {
        let starter = || {
            start.wait();
            secrets::load_or_create(folder.path()).unwrap()
        };
        let running: Vec<_> = (0..8).map(|_| scope.spawn(starter)).collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(all.iter().all(|secrets| *secrets == all[0]));
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    secrets::load_or_create(folder.path()).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(folder.path().join(FILE_NAME), Permissions::from_mode(mode)).unwrap();
        assert!(refused(folder.path()).contains("chmod 600"), "{mode:o}");
    }
    assert_snapshot!(refused(folder.path()), @"DATA/secrets.toml can be read by others (mode 0660); run: chmod 600 DATA/secrets.toml");
}

#[test]
fn errors_and_debug_formats_show_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let made = secrets::load_or_create(folder.path()).unwrap();
    let root = made.token("root").unwrap();
    assert!(!format!("{made:?} {root:?} {:?}", made.store_tokens()).contains(root.expose()));
    let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
    write(folder.path(), &text.replace('"', ""));
    let error = refused(folder.path());
    assert!(
        !error.contains(root.expose()) && !error.contains(made.keys.cluster.expose()),
        "{error}"
    );
    write(folder.path(), &text.replace(root.expose(), "tooshort"));
    let error = refused(folder.path());
    assert!(!error.contains("tooshort"), "{error}");
    assert_snapshot!(error, @"check DATA/secrets.toml: tokens.root must be at least 16 visible ASCII characters without spaces");
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert_snapshot!(refused(folder.path()), @"open DATA/secrets.toml (the first start makes it; a further host needs a copy of it): No such file or directory (os error 2)");
    secrets::load_or_create(folder.path()).unwrap();
    let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
    let without = |start: &str| {
        let lines = text.lines().filter(|line| !line.starts_with(start));
        lines.collect::<Vec<_>>().join("\n")
    };
    write(folder.path(), &without("root ="));
    assert_snapshot!(refused(folder.path()), @"check DATA/secrets.toml: tokens.root is missing; add it, or take the file of another host of this cluster");
    write(folder.path(), &without("cluster ="));
    assert_snapshot!(refused(folder.path()), @"DATA/secrets.toml:17: missing field `cluster`");
}

#[test]
fn only_some_tokens_open_the_store_and_each_only_its_part() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = secrets::load_or_create(folder.path()).unwrap();
    let mut lines = Vec::new();
    for seed in secrets.store_tokens() {
        assert!(secrets.token(&seed.name).unwrap().matches(seed.secret.expose()));
        let rules = seed.rules.iter();
        let rules: Vec<String> = rules
            .map(|(prefix, access)| format!("{access:?} {prefix}*"))
            .collect();
        lines.push(format!("{}: {}", seed.name, rules.join(", ")));
    }
    assert_snapshot!(lines.join("\n"), @r"
    root: Write *
    petstore: Write shop/*, Write registry/petstore/*
    payment: Write pay/*, Write registry/payment/*
    predictors: Write predict/*, Write registry/predictors/*
    gateway: Read registry/*
    mirror: Read *, Write registry/mirror/*, Write mirror/*
    ");
}

#[test]
fn a_secret_matches_only_itself() {
    let secret = secrets::Secret::new("0123456789abcdef");
    assert!(secret.matches("0123456789abcdef"));
    assert!(!secret.matches("0123456789abcdeF") && !secret.matches("0123") && !secret.matches(""));
}

#[test]
fn bent_files_are_read_or_refused_without_a_word_of_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let made = secrets::load_or_create(folder.path()).unwrap();
    let whole = fs::read(folder.path().join(FILE_NAME)).unwrap();
    let mut all = vec![
        &made.keys.cluster,
        &made.keys.card_hmac_1,
        &made.shop.admin_password,
    ];
    all.extend(made.tokens.values());
    crate::bent::feed(&[whole], |bytes| {
        // The file is private, and stays so.
        fs::write(folder.path().join(FILE_NAME), bytes).unwrap();
        match secrets::load(folder.path()) {
            Ok(read) => assert!(TOKEN_NAMES.iter().all(|name| read.token(name).is_some())),
            Err(error) => {
                let told = format!("{error:#}");
                let tells = |secret: &&Secret| told.contains(secret.expose());
                assert!(!all.iter().any(tells), "{told}");
            }
        }
    });
}
