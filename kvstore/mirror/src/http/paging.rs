//! Pages of lists: how many rows, where the page before ended, and where the next one begins.
//! Invariant: a cursor that no mirror gave out is refused, since what it names is no place here: read as one, it would
//! make a wrong page that nobody notices. It names the last row that was shown, so that rows which come or go between
//! two pages make no other row be skipped or shown twice.

use axum::http::{HeaderValue, Uri, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::problem::{Problem, Result};
use service::query::{self, Query, malformed};

const LIMIT_DEFAULT: u64 = 50;
const LIMIT_MAX: u64 = 200;
/// Begins every cursor of a mirror, before its name. No shop makes such a one, and the gateway tells from it who can go
/// on.
const MARK: &str = "m.";

pub(super) fn limit(query: &Query<'_>) -> Result<usize> {
    let limit = query.number("limit")?.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(malformed(format!(
            "The parameter `limit` is a number from 1 to {LIMIT_MAX}."
        )));
    }
    Ok(usize::try_from(limit).expect("it is small"))
}

fn cursor(mirror: &str, place: &impl Serialize) -> String {
    let text = serde_json::to_string(place).expect("places have only text keys and plain values");
    format!("{MARK}{mirror}.{}", URL_SAFE_NO_PAD.encode(text))
}

fn read<P: DeserializeOwned>(cursor: &str) -> Option<P> {
    let named = cursor.strip_prefix(MARK)?;
    // An earlier version put no name before the place. Names may have dots, places have none.
    let place = named.rsplit_once('.').map_or(named, |(_mirror, place)| place);
    let text = URL_SAFE_NO_PAD.decode(place).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The last row of the page before; `None` for the first page.
pub(super) fn after<P: DeserializeOwned>(query: &Query<'_>) -> Result<Option<P>> {
    let Some(cursor) = query.text("cursor")? else {
        return Ok(None);
    };
    read(&cursor).map(Some).ok_or_else(foreign)
}

pub(super) fn foreign() -> Problem {
    malformed("The cursor is not one that this list gave out. Begin with the first page.")
}

/// Says where the page after this row of this mirror is.
pub(super) fn link_next(response: &mut Response, uri: &Uri, mirror: &str, last: &impl Serialize) {
    let link = format!("<{}>; rel=\"next\"", query::next_page(uri, &cursor(mirror, last)));
    if let Ok(link) = HeaderValue::try_from(link) {
        response.headers_mut().insert(header::LINK, link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_of_a_mirror_are_read() {
        let own = cursor("copy.one", &(7, "x"));
        assert!(own.starts_with("m.copy.one."), "{own}");
        assert_eq!(read::<(i64, String)>(&own), Some((7, "x".to_owned())));
        let earlier = own.replace("copy.one.", "");
        assert_eq!(read::<(i64, String)>(&earlier), Some((7, "x".to_owned())));
        assert_eq!(read::<(i64, i64)>(&own), None, "it is a place of another list");
        // Of a shop: `123.50`.
        for foreign in ["MTIzLjUw", "50", "", "m.", "m.!", "m.MTIzLjUw", "m.one.!"] {
            assert_eq!(read::<(i64, String)>(foreign), None, "{foreign}");
        }
    }
}
