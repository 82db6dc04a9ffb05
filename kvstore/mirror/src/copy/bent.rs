//! Rows that no service writes, and what a disk could hold in place of a copy in JSON.
//! Invariant: whatever a key and its value are, SQLite and the maps in memory make the same rows of them, and none is
//! left when the key goes. A journal or a document is read or refused.

use std::fs;

use rusqlite::Connection;
use service::config::MirrorMode;

use super::journal::{self, Entry, Written};
use super::{Maps, json, sql, sqlite, tables};
use crate::bent::feed;
use crate::row::{Change, Row};
use crate::shape::{self, Effect, TABLES, Table};

/// Each a key, and on the next line its value.
const ROWS: [&str; 11] = [
    "shop/one/live/goods/7/record\n{\"name\":\"Rex\",\"species\":\"dog\",\"category\":\"pets\",\"description\":\"good\",\
     \"price_minor\":29999,\"created_ms\":5}",
    "shop/one/live/goods/7/stock\n3",
    "shop/one/live/order/u%2F1/5\n{\"status\":\"paid\",\"total_minor\":5,\"currency\":\"EUR\",\"payment\":{\"id\":\"p\",\
     \"brand\":\"visa\",\"last4\":\"4242\"},\"created_ms\":1,\"lines\":[{\"product\":\"1\",\"name\":\"Pet\",\
     \"unit_minor\":1,\"quantity\":2},{\"product\":\"2\",\"species\":null,\"unit_minor\":2.5,\"quantity\":true}]}",
    "shop/one/live/cart/u1\n{\"items\":[[\"7\",2],[\"8\",1],[\"7\",3]]}",
    "shop/one/user/%C3%A9\n{\"username\":\"ann\",\"created_ms\":1}",
    "pay/card/c1/record\n{\"brand\":\"visa\",\"last4\":\"4242\",\"currency\":\"EUR\",\"status\":\"active\"}",
    "pay/card/c1/holds\n-9223372036854775808",
    "pay/payment/p1/record\n{\"status\":\"captured\",\"created_ms\":1,\"captured\":5,\"order\":{\"card\":\"c1\",\
     \"brand\":\"visa\",\"last4\":\"4242\",\"merchant\":\"m\",\"amount\":5,\"currency\":\"EUR\",\"capture\":\"manual\"}}",
    "pay/payment/p1/capture\n{\"kind\":\"capture\",\"debit\":\"card:c1\",\"credit\":\"merchant:m:1\",\"amount\":5,\
     \"currency\":\"EUR\",\"created_ms\":1}",
    "pay/funded/c1/1\n{\"kind\":\"funding\",\"debit\":\"funding:1\",\"credit\":\"card:c1\",\"amount\":5}",
    "predict/model/svm\n{\"url\":\"u\",\"unbonding\":false,\"joined_ms\":1,\"account\":{\"stake_micro\":5,\"misses\":0}}",
];

fn row(bytes: &[u8]) -> Option<Row> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(Row {
        key: std::str::from_utf8(&bytes[..end]).ok()?.to_owned(),
        value: bytes[end + 1..].to_vec().into(),
        ..Row::default()
    })
}

/// Carries it out on both; answers which tables it touched, and whether the value was what its key promises.
fn carry_out(change: &Change, connection: &Connection, maps: &mut Maps) -> (Vec<&'static Table>, bool) {
    let Effect { edits, shapeless } = shape::effect(change);
    let counted = tables::change(connection, change).expect("any change is taken");
    assert_eq!(counted, u64::from(shapeless));
    let touched = edits.iter().map(|edit| edit.table).collect();
    for edit in edits {
        maps.edit(edit);
    }
    (touched, !shapeless)
}

#[test]
fn rows_of_the_store() {
    let connection = Connection::open_in_memory().expect("it needs no disk");
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(&sql::schema()).expect("it is empty");
    // Answers whether it is shown in a table.
    let come_and_go = |row: Row| {
        let mut maps = Maps::default();
        let gone = Change::Delete(row.key.clone());
        let (touched, fits) = carry_out(&Change::Put(row), &connection, &mut maps);
        let mut is_shown = false;
        for &table in &touched {
            let rows = sqlite::select(&connection, table, &[]).expect("it can be read");
            assert_eq!(rows, maps.select(table, &[]), "{}", table.name);
            is_shown |= fits && !rows.is_empty();
        }
        carry_out(&gone, &connection, &mut maps);
        for table in touched {
            let left = sqlite::select(&connection, table, &[]).expect("it can be read");
            assert!(left.is_empty() && maps.select(table, &[]).is_empty(), "{left:?}");
        }
        is_shown
    };
    for text in ROWS {
        let row = row(text.as_bytes()).expect("it has a key");
        assert!(come_and_go(row), "no row of a table: {text}");
    }
    feed(&ROWS.map(|text| text.as_bytes().to_vec()), |bytes| {
        if let Some(row) = row(bytes) {
            come_and_go(row);
        }
    });
}

const CHANGES: &str = r#"{"revision":7,"changes":[{"put":{"key":"a","value":"b","create_revision":5,"mod_revision":7,
"version":2,"lease":3,"granted":{"id":3,"ttl_ms":500,"owner":"root"}}},{"delete":"shop/one/live/cart/u2"}],
"answers":[{"owner":"o","key":"k","revision":7,"expires_ms":1,"fingerprint":"AA==","reply":""}]}"#;

/// With a length and a checksum that hold.
fn record(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("it is short").to_le_bytes();
    let checksum = crc32c::crc32c(body).to_le_bytes();
    [&length[..], &checksum[..], body].concat()
}

/// The revisions of the records, as far as they are read.
fn revisions(text: &[u8], written: Written) -> anyhow::Result<Vec<u64>> {
    let mut revisions = Vec::new();
    let end = journal::read(text, written, &mut |entry: Entry| {
        revisions.push(entry.revision);
        for stored in entry.changes {
            shape::effect(&Change::from(stored));
        }
        for kept in entry.answers {
            drop(kept.by_clock(1));
        }
    })?;
    assert!(end <= text.len() as u64);
    Ok(revisions)
}

#[test]
fn journals() {
    let one = record(CHANGES.as_bytes());
    let two = [one.clone(), one.clone()].concat();
    for written in [Written::Synced, Written::Unsynced] {
        let read = revisions(&two, written).expect("it is whole");
        assert_eq!(read, [7, 7], "{written:?}");
    }
    feed(&[CHANGES.as_bytes().to_vec(), two], |bytes| {
        for written in [Written::Synced, Written::Unsynced] {
            drop(revisions(bytes, written));
            drop(revisions(&[record(bytes), one.clone()].concat(), written));
        }
    });
}

/// The document, which the third journal goes on from.
fn document(journal: u64) -> String {
    let put =
        r#"{"key":"shop/one/live/cart/u1","value":"{\"items\":[[\"7\",2]]}","mod_revision":5,"version":1}"#;
    let kept = r#"{"owner":"o","key":"k","revision":5,"expires_ms":1,"fingerprint":"AA==","reply":""}"#;
    format!(
        r#"{{"revision":5,"cluster":"c","incarnation":"0123456789abcdef","journal":{journal},"unsynced":true,
        "aside":true,"kvs":[{put},{{"key":"b","value_base64":"AJ+Slg=="}}],"answers":[{kept}]}}"#
    )
}

#[test]
fn documents() {
    let folder = tempfile::tempdir().expect("there is a folder for it");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).expect("there is room for it");
    };
    write("journal-3.log", &record(CHANGES.as_bytes()));
    // Answers how many keys and rows of tables there are, and of which revision.
    let read = |bytes: &[u8]| {
        write("kv.json", bytes);
        let view = json::read(folder.path()).ok()?.view();
        drop(view.answers());
        let shown: usize = TABLES
            .iter()
            .map(|table| view.maps.select(table, &[]).len())
            .sum();
        Some((view.after(None, 100).len() + shown, view.head.revision))
    };
    let whole = document(3).into_bytes();
    assert_eq!(read(&whole), Some((4, 7)), "three keys, and a line of a cart");
    feed(&[whole], |bytes| {
        read(bytes);
    });
}

#[test]
fn a_document_that_leaves_no_number_for_the_next_journal_is_damaged() {
    let folder = tempfile::tempdir().expect("there is a folder for it");
    fs::write(folder.path().join("kv.json"), document(u64::MAX)).expect("there is room for it");
    // In the other mode, in which a new journal is begun at once.
    let opened = json::open(folder.path(), MirrorMode::Sync);
    let refused = opened.err().expect("it is not gone on with");
    assert!(format!("{refused:#}").contains("is damaged"), "{refused:#}");
}
