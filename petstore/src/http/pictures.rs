//! A picture for each species, drawn by us and kept in the program.
//! Invariant: a picture has neither scripts nor styles, and may load nothing.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

const OTHER: &str = include_str!("../../pictures/other.svg");

macro_rules! pictures {
    ($($species:literal)*) => {
        const PICTURES: &[(&str, &str)] = &[
            $(($species, include_str!(concat!("../../pictures/", $species, ".svg")))),*
        ];
    };
}

pictures! {
    "cat" "dog" "rabbit" "hamster" "parrot" "goldfish" "turtle" "snake" "hedgehog" "axolotl" "chick" "gecko"
}

const POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

/// `GET /pictures/{file}`: one for every species, also for those that nobody drew.
pub(super) async fn show(Path(file): Path<String>) -> Response {
    let species = file.strip_suffix(".svg").unwrap_or(&file).to_lowercase();
    let known = PICTURES.iter().find(|(known, _)| *known == species);
    let picture = known.map_or(OTHER, |(_, picture)| picture);
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, picture).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_plain_drawings() {
        for (species, picture) in PICTURES.iter().chain([&("other", OTHER)]) {
            assert!(
                picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""),
                "{species}"
            );
            for word in [
                "<script",
                "<style",
                "style=",
                "href",
                "onload",
                "<image",
                "<foreignObject",
            ] {
                assert!(!picture.contains(word), "{species} has {word}");
            }
            assert!(picture.contains("<title>"), "{species} says what it is");
        }
    }
}
